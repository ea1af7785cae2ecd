// Watches a run of an agent, and answers its question: node client.mjs TASK_ID ANSWER [ws://localhost:8000/ws] [TOKEN].
// Needs `npm install ws`; browsers have WebSocket.
import WebSocket from "ws";

const [id, answer, url = "ws://localhost:8000/ws", token] = process.argv.slice(2);
const ENDS = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];
let tries = 0;

function connect() {
  const socket = new WebSocket(token ? `${url}?token=${token}` : url);
  const say = (message) => socket.send(JSON.stringify(message));
  socket.onopen = () => {
    tries = 0;
    say({ type: "subscribe", channel: `task:${id}` });
  };
  socket.onmessage = (event) => {
    const { type, task_id, data, message, success } = JSON.parse(event.data);
    if (type === "ping") say({ type: "pong" });
    if (type === "subscription_result") console.log("watching");
    if (type === "error" || success === false) console.log("failed:", message);
    if (task_id !== id) return;
    if (type === "task_output") data.lines.forEach((line) => console.log(line));
    if (type === "task_progress_update") console.log(`${Math.round(data.percent)} %`);
    if (type === "task_confirmation_required") {
      console.log(data.text);
      say({ type: "task_input", task_id: id, input: answer });
    }
    if (type === "task_status_change" && ENDS.includes(data.status)) {
      console.log(data.status);
      socket.close(1000);
    }
  };
  socket.onerror = ({ message }) => console.error(message); // `close` follows
  socket.onclose = ({ code }) => {
    if (code !== 1000 && tries < 5) setTimeout(connect, 1_000 * 2 ** tries++);
  };
}

connect();
