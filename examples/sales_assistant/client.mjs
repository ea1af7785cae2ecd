// One who chats: node client.mjs SESSION TOKEN [ws://localhost:8000]; what is typed is said. Needs `npm install ws`.
import { createInterface } from "node:readline";
import WebSocket from "ws";

const [session, token, site = "ws://localhost:8000"] = process.argv.slice(2);
let socket;
let tries = 0;

const show = {
  connection_established: () => console.log("connected"),
  session_joined: ({ user }) => console.log(`${user.user_id} has come`),
  session_left: ({ user }) => console.log(`${user.user_id} has gone`),
  typing: ({ user_id }) => console.log(`${user_id} is typing`),
  message_status_update: ({ client_message_id, status }) => console.log(`${client_message_id}: ${status}`),
  ai_processing_status: ({ data }) => console.log(`AI: ${data.status}`),
  notification: ({ notification }) => console.log(`${notification.type}: ${notification.title}, ${notification.message}`),
  system_maintenance_start: ({ data }) => console.log(`maintenance, ${data.message}`),
  new_message({ user_id, data, message_id }) {
    console.log(`${user_id}: ${data.text}`);
    say("message_read", { message_id });
  },
};

function say(type, fields) {
  socket.send(JSON.stringify({ type, ...fields }));
}

function connect() {
  socket = new WebSocket(`${site}/ws/chat/session/${session}?token=${token}`);
  socket.onopen = () => (tries = 0);
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    show[message.type]?.(message);
  };
  socket.onerror = ({ message }) => console.error(message); // `close` follows
  socket.onclose = () => tries++ < 5 && setTimeout(connect, 1_000 * 2 ** tries);
}

connect();
let number = 0;
for await (const text of createInterface({ input: process.stdin })) {
  say("typing", { session_id: session, is_typing: true });
  say("new_message", { session_id: session, message_id: `line ${++number}`, data: { text } });
}
