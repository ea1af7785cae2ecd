// A WebSocket client over the npm package `ws`. It is told what to do by JSON lines on stdin, and tells what it sees on
// stdout; client.py in this folder names the orders and the reports. driver.py is its twin in Python.
import { createInterface } from "node:readline";
import WebSocket from "ws";

let order; // the last `open`
let socket;
let tries = 0;
let leaving = false;

const tell = (saw, details = {}) => process.stdout.write(`${JSON.stringify({ saw, ...details })}\n`);

const orders = {
  open(told) {
    [order, tries, leaving] = [told, 0, false];
    connect();
  },
  send: ({ text }) => socket.send(text),
  say({ texts }) {
    order.says = texts;
    for (const text of texts) socket.send(text);
  },
  close({ code, reason }) {
    leaving = true;
    socket.close(code, reason);
  },
};

function connect() {
  let outcome = ["failed", {}];
  socket = new WebSocket(order.url, order.subprotocols, { headers: order.headers });
  socket.on("open", () => {
    tries = 0;
    tell("open", { subprotocol: socket.protocol });
    for (const text of order.says) socket.send(text);
    outcome = ["close", {}];
  });
  socket.on("message", (data) => tell("message", { text: data.toString() }));
  socket.on("unexpected-response", async (request, response) => {
    const chunks = await response.toArray();
    outcome = ["refused", { status: response.statusCode, body: Buffer.concat(chunks).toString() }];
    socket.terminate();
  });
  socket.on("error", () => {}); // `close` follows
  socket.on("close", (code, reason) => {
    const [saw, details] = outcome;
    tell(saw, saw === "close" ? { code, reason: reason.toString() } : details);
    comeBack(saw === "close" ? code : 1006);
  });
}

function comeBack(code) {
  if (leaving || order.final.includes(code) || order.delays.length === 0) return;
  if (tries === order.delays.length) return tell("gave_up");
  tell("retry", { after: order.delays[tries] });
  setTimeout(connect, order.delays[tries++] * 1000);
}

for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  orders[told.do](told);
}
process.exit(0);
