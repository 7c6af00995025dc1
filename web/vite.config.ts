// Builds the page into microgpt/site/built/ (or --outDir). See scripts/build.py for what comes before.

import { createHash } from "node:crypto";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { deflateSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const here = import.meta.dirname;
const generated = join(here, "generated");
const pyodide = dirname(createRequire(import.meta.url).resolve("pyodide"));

const RECORDING_LIMIT = 60_000; // bytes, deflated: the page plays it before anything else has loaded

/** What the page may do: its own files, and WebAssembly. Nothing inline, nothing from another host. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "connect-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

const pythonFiles: Record<string, string> = {
  "pyodide.mjs": join(pyodide, "pyodide.mjs"),
  "pyodide.asm.mjs": join(pyodide, "pyodide.asm.mjs"),
  "pyodide.asm.wasm": join(pyodide, "pyodide.asm.wasm"),
  "stdlib.zip": join(generated, "stdlib.zip"),
  "core.zip": join(generated, "core.zip"),
};

function needed(path: string): Buffer {
  if (!existsSync(path)) throw new Error(`${path} is missing: run "make site", which makes it.`);
  return readFileSync(path);
}

/**
 * Carries Python and the recording. Pyodide looks for its files by fixed names, so the folder has the hash.
 * Without the comments that point at source maps, which are not shipped.
 */
function microgpt(): Plugin {
  const contents = Object.fromEntries(
    Object.entries(pythonFiles).map(([name, path]) => {
      const bytes = needed(path);
      if (!name.endsWith(".mjs")) return [name, bytes];
      return [name, Buffer.from(bytes.toString().replace(/^\/\/# sourceMappingURL=.*$/m, ""))];
    }),
  );
  const hash = (parts: Buffer[]) =>
    parts.reduce((h, part) => h.update(part), createHash("sha256")).digest("hex").slice(0, 10);
  const folder = `assets/python-${hash(Object.values(contents))}/`;
  const recording = deflateSync(needed(join(generated, "recording.json")), { level: 9 });
  if (recording.length > RECORDING_LIMIT)
    throw new Error(`The recording has ${recording.length} bytes, more than ${RECORDING_LIMIT}.`);
  const recordingName = `assets/recording-${hash([recording])}.bin`;
  const sizes = Object.fromEntries(
    Object.entries(contents)
      .filter(([name]) => !name.endsWith(".mjs")) // loaded as modules, which nobody can count
      .map(([name, bytes]) => [name, bytes.length]),
  );

  return {
    name: "microgpt",
    config: () => ({
      define: {
        __PYTHON__: JSON.stringify({ folder, sizes }),
        __RECORDING__: JSON.stringify(recordingName),
      },
    }),
    generateBundle() {
      for (const [name, source] of Object.entries(contents))
        this.emitFile({ type: "asset", fileName: folder + name, source });
      this.emitFile({ type: "asset", fileName: recordingName, source: recording });
      this.emitFile({
        type: "asset",
        fileName: "licences.txt",
        source: needed(join(generated, "licences.txt")),
      });
    },
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        const path = (request.url ?? "").split("?")[0]!.slice(1);
        if (path === recordingName) return void response.end(recording);
        const file = path.startsWith(folder) && pythonFiles[path.slice(folder.length)];
        if (!file) return next();
        if (file.endsWith(".mjs")) response.setHeader("content-type", "text/javascript");
        if (file.endsWith(".wasm")) response.setHeader("content-type", "application/wasm");
        createReadStream(file).pipe(response);
      });
    },
    transformIndexHtml: {
      order: "post",
      handler(html, { server }) {
        if (server) return html; // Vite's own page reload needs inline scripts
        if (!html.includes("<head>")) throw new Error("The page has no <head> for its policy.");
        const meta = `<meta http-equiv="Content-Security-Policy" content="${POLICY}">`;
        return html.replace("<head>", `<head>\n    ${meta}`);
      },
    },
  };
}

/**
 * CodeMirror puts its styles into a <style> element, which the policy forbids. Inside a shadow root its
 * style-mod uses a style sheet object instead, which the policy allows; every browser that can run the page
 * has those for documents too. This takes that branch always, and fails the build if the code has changed.
 */
function styleSheetObjects(): Plugin {
  const condition = "if (!root.head && root.adoptedStyleSheets && win.CSSStyleSheet)";
  return {
    name: "style-sheet-objects",
    transform(code, id) {
      if (!/style-mod\/src\/style-mod\.js$/.test(id.split("?")[0]!)) return null;
      if (!code.includes(condition))
        throw new Error("style-mod has changed: see styleSheetObjects in vite.config.ts.");
      return { code: code.replace(condition, "if (root.adoptedStyleSheets)"), map: null };
    },
  };
}

export default defineConfig(({ mode }) => ({
  root: here,
  base: "./",
  publicDir: existsSync(join(here, "public")) ? "public" : false,
  plugins: [svelte(), microgpt(), styleSheetObjects()],
  optimizeDeps: { exclude: ["style-mod"] },
  build: {
    outDir: join(here, "..", "microgpt", "site", "built"),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 2000,
    rollupOptions: {
      input:
        mode === "test"
          ? { index: join(here, "engine-test.html") }
          : { index: join(here, "index.html") },
    },
  },
  worker: { format: "es" },
}));
