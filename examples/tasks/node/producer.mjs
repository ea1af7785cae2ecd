// A task in Node: node producer.mjs ID [STEPS]
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, headers } from "@nats-io/transport-node";

const HEARTBEAT = 5; // seconds
const [id, count = "20"] = process.argv.slice(2);
const steps = Number(count);

const url = new URL(process.env.NATS_URL);
const [name, password] = [url.username, url.password].map(decodeURIComponent);
const login = password ? { user: name, pass: password } : { token: name || undefined }; // a name alone is a token
const connection = await connect({ servers: url.host, ...login });

function tell(event, data) {
  const i = randomUUID();
  const known = headers();
  known.set("Nats-Msg-Id", `/task:${id}/${i}`); // stored only once, even if it is sent again
  const envelope = { v: 1, e: event, i, ts: Date.now(), d: data };
  connection.publish(`fanline.pub.task.${id}`, JSON.stringify(envelope), { headers: known });
}

let cancelledBy;
connection.subscribe(`fanline.ctl.task.${id}`, {
  callback(error, request) {
    if (error) return;
    const call = request.json();
    let reply = { v: 1, t: "err", d: { code: "refused", message: "this task can only be cancelled" } };
    if (call.t === "ping") reply = { v: 1, t: "pong" }; // is a producer attached?
    if (call.e === "cancel") {
      cancelledBy = call.u; // it may come more than once
      reply = { v: 1, t: "ok" };
    }
    request.respond(JSON.stringify(reply));
  },
});
tell("task_started", { title: "Counting in Node", heartbeat: HEARTBEAT });
const beat = () => connection.publish(`fanline.beat.task.${id}`);
const beats = setInterval(beat, (HEARTBEAT / 2) * 1000);
beat();

for (let step = 1; step <= steps && cancelledBy === undefined; step++) {
  await sleep(100); // the work
  tell("task_output", { lines: [`step ${step} is done`] });
  tell("task_progress", { done: step, total: steps, stage: "counting" });
}
if (cancelledBy === undefined) tell("task_completed", { result: { counted: steps } });
else tell("task_cancelled", { by: cancelledBy });
clearInterval(beats);
await connection.drain();
