import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: { outDir: "../back/static", emptyOutDir: true, assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  // `npm run dev` beside a running service
  server: { proxy: { "/api": "http://127.0.0.1:1234", "/healthz": "http://127.0.0.1:1234" } },
});
