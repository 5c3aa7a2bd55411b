/** LMDB alone, one synced put after the other, in rounds asked for on standard input: `node serve-lmdb.js FOLDER`. */
import { createInterface } from "node:readline";
import { open } from "lmdb";

const [, , folder = ""] = process.argv;
const db = open<string, number>({
  path: folder,
  encoding: "string",
  keyEncoding: "uint32",
  overlappingSync: false,
});
const value = "x".repeat(400);
let key = 0;
process.stdout.write("ready\n");
for await (const line of createInterface({ input: process.stdin })) {
  const until = performance.now() + Number(line);
  const started = performance.now();
  let puts = 0;
  while (performance.now() < until) {
    key += 1;
    await db.put(key, value);
    puts += 1;
  }
  process.stdout.write(`${(puts * 1000) / (performance.now() - started)}\n`);
}
await db.close();
