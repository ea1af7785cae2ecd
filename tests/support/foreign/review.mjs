// The two clients in JavaScript of the contract review, after the table of what each says and expects:
// node review.mjs URL class|hook PACE. PACE divides their times. They print what their page would show.
import WebSocket from "ws";

const [url, form, pace] = process.argv.slice(2);
const after = (seconds, run) => setTimeout(run, (seconds * 1000) / pace);
const tell = (saw, details = {}) => process.stdout.write(`${JSON.stringify({ saw, ...details })}\n`);
const now = (type) => JSON.stringify({ type, timestamp: Date.now() });

/** Comes back 5 times, 3 s apart, whatever the code; an open connection begins the count again. */
class Review {
  tries = 0;

  connect() {
    this.socket = new WebSocket(url);
    this.socket.onopen = () => this.opened();
    this.socket.onmessage = ({ data }) => this.take(data);
    this.socket.onerror = () => {};
    this.socket.onclose = ({ code }) => this.closed(code);
  }

  opened() {
    this.tries = 0;
    tell("open");
    this.socket.send(JSON.stringify({ type: "get_status" }));
    this.beats = setInterval(() => this.socket.send(now("heartbeat")), 30_000 / pace);
  }

  take(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return tell("not_json");
    }
    switch (message.type) {
      case "connection":
        return tell("connection", { message: message.message, task_id: message.task_id });
      case "status": // a status without a type of contract is not shown
        return message.contract_type && tell("status", { status: message.status, contract: message.contract_type });
      case "pong":
      case "heartbeat_ack":
        return tell(message.type, { echoed: typeof message.timestamp === "number" });
      case "error":
        return tell("error", { message: message.message });
    }
    if (message.stage) tell("progress", { stage: message.stage, progress: message.progress });
  }

  closed(code) {
    clearInterval(this.beats);
    tell("close", { code });
    if (this.tries === 5) return tell("gave_up");
    this.tries += 1;
    after(3, () => this.connect());
  }
}

/** Any close is final; a stage counts whatever else the message is. */
class Hook extends Review {
  take(text) {
    const message = JSON.parse(text);
    if (message.stage) tell("progress", { stage: message.stage, progress: message.progress });
    if (message.type === "status") tell("status", { status: message.status, contract: message.contract_type ?? null });
    if (message.type === "error") tell("error", { message: message.message });
  }

  closed(code) {
    clearInterval(this.beats);
    tell("close", { code });
    process.exit(0);
  }
}

const client = form === "hook" ? new Hook() : new Review();
client.connect();
process.stdin.on("data", (text) => client.socket.send(text.toString().trim())); // what a tester types
process.stdin.on("end", () => process.exit(0));
