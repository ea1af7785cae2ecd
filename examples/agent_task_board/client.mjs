// The board of a project: node client.mjs PROJECT [ws://localhost:8000]. Needs `npm install ws`, in a browser nothing.
import WebSocket from "ws";

const [project, site = "ws://localhost:8000"] = process.argv.slice(2);
const [BASE, MOST] = [1_000, 5]; // milliseconds; tries
const handlers = new Set();
let tries = 0;

function connect() {
  const socket = new WebSocket(`${site}/ws/board`);
  socket.onopen = () => {
    tries = 0;
    socket.send(JSON.stringify({ type: "ping" })); // the `pong` comes when every project is heard
  };
  socket.onmessage = ({ data }) => {
    for (const handle of handlers) handle(JSON.parse(data));
  };
  socket.onerror = ({ message }) => console.error(message); // `close` follows
  socket.onclose = () => {
    if (++tries <= MOST) setTimeout(connect, BASE * 2 ** (tries - 1));
  };
}

function subscribe(handle) {
  handlers.add(handle);
  return () => handlers.delete(handle);
}

subscribe(({ type, project_id, data }) => {
  if (project_id === project) console.log(type, JSON.stringify(data));
});
subscribe(({ type, data }) => {
  if (type === "pong") console.log("connected");
  if (type === "log") console.log(data.message);
});
connect();
