/** A bare Koa application that answers each path with a file's bytes: `node serve-bare.js PATH=FILE…`. */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import Koa from "koa";

const bodies = new Map(
  process.argv.slice(2).map((pair): [string, Buffer] => {
    const [path = "", file = ""] = pair.split("=");
    return [path, readFileSync(file)];
  }),
);
const app = new Koa();
app.use((ctx) => {
  ctx.type = "application/json";
  ctx.body = bodies.get(ctx.path);
});
const serve = app.callback();
const server = createServer((req, res) => void serve(req, res));
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
});
