// Runs commands in a lab machine for the test on its outside. One JSON object a line, over one serial port.
//
//   in:  { id, op: "start", command, env?, cwd? }   { id, op: "input", data?, end? }   { id, op: "signal", signal }
//   out: { ready: true }   { id, pid }   { id, stdout | stderr: BASE64 }   { id, exit: { code, signal } }
//
// It ends when the outside is gone, and the machine with it.
import { spawn } from "node:child_process";
import { createReadStream, openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";

const port = openSync(process.argv[2], "r+");
const children = new Map();

function send(message) {
  const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
  for (let sent = 0; sent < bytes.length;) sent += writeSync(port, bytes, sent);
}

function start({ id, command, env, cwd }) {
  // A group of its own, so that a time limit ends the whole of it.
  const child = spawn("bash", ["-c", command], {
    detached: true,
    cwd,
    env: { ...process.env, PATH: `/project/node_modules/.bin:${process.env["PATH"]}`, ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let isOver = false;
  const over = (exit) => {
    if (isOver) return;
    isOver = true;
    children.delete(id);
    send({ id, exit });
  };
  child.on("error", (error) => {
    send({ id, stderr: Buffer.from(error.message).toString("base64") });
    over({ code: 127, signal: null });
  });
  // A daemon that the command left behind may hold its output open for ever, so "close" is waited for only shortly;
  // what was written before the end is read first, however late this process gets to it.
  child.on("exit", (code, signal) => setTimeout(() => setImmediate(over, { code, signal }), 300));
  child.on("close", (code, signal) => over({ code, signal }));
  for (const name of ["stdout", "stderr"])
    child[name].on("data", (data) => {
      if (!isOver) send({ id, [name]: data.toString("base64") });
    });
  // The command may end without having read its input.
  child.stdin.on("error", () => {});
  children.set(id, child);
  if (child.pid !== undefined) send({ id, pid: child.pid });
}

function input({ id, data, end }) {
  const stdin = children.get(id)?.stdin;
  if (data !== undefined) stdin?.write(Buffer.from(data, "base64"));
  if (end === true) stdin?.end();
}

function signal({ id, signal: name }) {
  const pid = children.get(id)?.pid;
  if (pid === undefined) return;
  try {
    process.kill(-pid, name);
  } catch {
    // It has just ended by itself.
  }
}

const operations = { start, input, signal };
const lines = createInterface({ input: createReadStream("", { fd: port, autoClose: false }) });
lines.on("line", (line) => {
  const message = JSON.parse(line);
  operations[message.op](message);
});
lines.on("close", () => process.exit(0));
send({ ready: true });
