// Runs a module of a web page in Node: with `ws` in place of the browser's WebSocket, and a document whose elements are
// known by their ids. `shown()` is what a reader of the page would see.
import { pathToFileURL } from "node:url";
import { WebSocket } from "ws";

globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols);
    this.on("error", () => {}); // a browser only closes
  }
};

const elements = {};
globalThis.document = {
  getElementById: (id) => (elements[id] ??= { textContent: "", append(text) { this.textContent += text; } }),
};
globalThis.shown = () => elements;

await import(pathToFileURL(process.argv[2]).href);
