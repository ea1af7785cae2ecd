// Follows a review: node client.mjs TASK_ID [ws://localhost:8000]. Needs `npm install ws`; browsers have WebSocket.
import WebSocket from "ws";

const [id, site = "ws://localhost:8000"] = process.argv.slice(2);
const ENDS = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];
let tries = 0;
let done = false;

function connect() {
  const socket = new WebSocket(`${site}/ws/review/${id}`);
  const say = (type) => socket.send(JSON.stringify({ type, timestamp: Date.now() }));
  let beats;
  socket.onopen = () => {
    tries = 0;
    say("get_status");
    beats = setInterval(() => say("heartbeat"), 30_000);
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "status") console.log(message.status, message.contract_type ?? "not known yet");
    if (message.type === "error") console.log("failed:", message.message);
    if (message.stage) console.log(`${message.progress} % ${message.stage}`);
    done ||= message.type === "error" || message.stage === "complete" || ENDS.includes(message.status);
    if (done) socket.close();
  };
  socket.onerror = ({ message }) => console.error(message); // `close` follows
  socket.onclose = () => {
    clearInterval(beats);
    if (!done && tries++ < 5) setTimeout(connect, 3_000);
  };
}

connect();
