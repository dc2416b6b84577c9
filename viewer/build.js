// Bundles src/index.js into the Python package; with --check only says whether the committed bundle is current.
import { build } from "esbuild";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const target = new URL("../src/maskprism/views/static/", import.meta.url);
const check = process.argv.includes("--check");

/** @param {string} entry @param {string} name */
async function bundle(entry, name) {
  const built = await build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    minify: true,
    charset: "ascii",
    format: "esm",
    target: ["es2022", "chrome105", "firefox113", "safari16.4"],
    legalComments: "none",
    write: false,
  });
  const text = built.outputFiles[0].text;
  if (!check) return writeFile(new URL(name, target), text);
  const committed = await readFile(new URL(name, target), "utf8").catch(() => "");
  if (committed === text) return undefined;
  console.error(`src/maskprism/views/static/${name} is stale; run: make viewer`);
  process.exitCode = 1;
  return undefined;
}

await bundle("src/index.js", "viewer.js");
await bundle("src/viewer.css", "viewer.css");
await bundle("src/gallery/main.js", "gallery.js");
await bundle("src/gallery/gallery.css", "gallery.css");
