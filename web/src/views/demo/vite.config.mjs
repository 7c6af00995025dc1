// The story page of the views, for work on them; nothing of it is shipped.
//   FIXTURES=/tmp/fixtures npx vite --config src/views/demo/vite.config.mjs

import { createReadStream, existsSync } from "node:fs";
import { join } from "node:path";
import { svelte } from "@sveltejs/vite-plugin-svelte";

const fixtures = process.env.FIXTURES ?? "/tmp/fixtures";

export default {
  root: import.meta.dirname,
  configFile: false,
  cacheDir: join(fixtures, ".vite"),
  server: { port: 5199, strictPort: true, hmr: false, fs: { strict: false } },
  plugins: [
    svelte(),
    {
      name: "fixtures",
      configureServer(server) {
        server.middlewares.use("/fixtures", (request, response, next) => {
          const file = join(fixtures, (request.url ?? "").split("?")[0]);
          return existsSync(file) ? void createReadStream(file).pipe(response) : next();
        });
      },
    },
  ],
};
