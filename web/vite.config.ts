// Builds the page into microgpt/site/built/ (or --outDir). See scripts/build.py for what comes before.

import { createHash } from "node:crypto";
import { createReadStream, existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { gzipSync, inflateRawSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin, type UserConfig } from "vite";
import { licences, packageOf } from "./scripts/licences.mjs";
import { source } from "./vite-plugin-source.ts";

const here = import.meta.dirname;
const generated = join(here, "generated");
const pyodide = dirname(createRequire(import.meta.url).resolve("pyodide"));

const RECORDING = "recording.json.gz"; // beside the page; the page checks that it is of the same file
const TRAINED = "trained.safetensors"; // the run that the recording shows, to go on with
const FIRST = "first.pack.gz"; // the same run at its beginning, for the kernel
const KERNEL = join(here, "..", "microgpt", "engines", "built", "kernel.wasm"); // where there was a compiler
const RECORDING_LIMIT = 60_000; // bytes: the page plays it before anything else has loaded
const FIRST_LIMIT = 60_000; // bytes, likewise

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
 * Carries Python, the recording and the licences. Pyodide looks for its files by fixed names, so their folder
 * has the hash. The comments that point at source maps go, because the maps are not shipped.
 */
function microgpt(mode: string): Plugin {
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
  const recorded = inflateRawSync(needed(join(generated, "recording.deflate")));
  const recording = gzipSync(recorded, { level: 9 });
  const trained = needed(join(generated, TRAINED));
  if (recording.length > RECORDING_LIMIT)
    throw new Error(`The recording has ${recording.length} bytes, more than ${RECORDING_LIMIT}.`);
  const kernel = existsSync(KERNEL) ? readFileSync(KERNEL) : null;
  const first = gzipSync(needed(join(generated, "first.pack")), { level: 9 });
  if (first.length > FIRST_LIMIT) throw new Error(`The first pack has ${first.length} bytes, more than ${FIRST_LIMIT}.`);
  const kernelFile = kernel && `assets/kernel-${hash([kernel])}.wasm`;
  const version = /^version = "(.+)"$/m.exec(needed(join(here, "..", "pyproject.toml")).toString())![1];
  const { info: platform } = JSON.parse(needed(join(pyodide, "pyodide-lock.json")).toString());
  const sizes = Object.fromEntries(
    Object.entries(contents)
      .filter(([name]) => !name.endsWith(".mjs")) // loaded as modules, which nobody can count
      .map(([name, bytes]) => [name, bytes.length]),
  );

  return {
    name: "microgpt",
    config: () => ({
      define: {
        __PYTHON__: JSON.stringify({ folder, sizes, platform, version }),
        __KERNEL__: JSON.stringify(kernelFile && { file: kernelFile, first: FIRST }),
      },
    }),
    generateBundle(_options, bundle) {
      for (const [name, source] of Object.entries(contents))
        this.emitFile({ type: "asset", fileName: folder + name, source });
      this.emitFile({ type: "asset", fileName: RECORDING, source: recording });
      this.emitFile({ type: "asset", fileName: TRAINED, source: trained });
      if (kernel && kernelFile) {
        this.emitFile({ type: "asset", fileName: kernelFile, source: kernel });
        this.emitFile({ type: "asset", fileName: FIRST, source: first });
      }
      const bundled = Object.values(bundle).flatMap((part) =>
        part.type === "chunk" ? part.moduleIds.map(packageOf).filter((name) => name !== null) : [],
      );
      const { text, markdown } = licences(new Set(bundled));
      this.emitFile({ type: "asset", fileName: "licences.txt", source: text });
      if (mode === "production") writeFileSync(join(generated, "THIRD_PARTY.md"), markdown); // the tests' page has less
    },
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        const path = (request.url ?? "").split("?")[0]!.slice(1);
        if (path === RECORDING) return void response.end(recording);
        if (path === TRAINED) return void response.end(trained);
        if (path === FIRST) return void response.end(first);
        if (kernel && path === kernelFile) return void response.end(kernel);
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

/** What renders the pages of the walk, for Node: one file with all that it needs, styles left out. */
const renderer: UserConfig = {
  root: here,
  publicDir: false,
  plugins: [svelte()],
  ssr: { noExternal: true },
  define: { __KERNEL__: "null" }, // nothing is trained there
  build: {
    ssr: true, // the command names the file
    outDir: join(generated, "renderer"),
    emptyOutDir: true,
    minify: false,
  },
};

const page = (mode: string): UserConfig => ({
  root: here,
  base: "./",
  publicDir: existsSync(join(here, "public")) ? "public" : false,
  plugins: [svelte(), source(), microgpt(mode), styleSheetObjects()],
  optimizeDeps: { exclude: ["style-mod"] },
  build: {
    outDir: join(here, "..", "microgpt", "site", "built"),
    emptyOutDir: true,
    manifest: mode !== "test", // scripts/walk.mjs finds the walk's files in it, and takes it out
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 2000,
    rollupOptions: {
      input:
        mode === "test"
          ? { index: join(here, "engine-test.html") }
          : { index: join(here, "index.html"), walk: join(here, "src", "walk", "main.ts") },
    },
  },
  worker: { format: "es" },
});

export default defineConfig(({ mode, isSsrBuild }) => (isSsrBuild ? renderer : page(mode)));
