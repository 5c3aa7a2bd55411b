/**
 * Runs in a machine: a client that stays connected, driven by lines of JSON on standard input.
 * Argument: the client's options. In: `{ id, call, params, body, context }`. Out: `{ id, value }` or `{ id, error }`.
 */
import { createInterface } from "node:readline";
import { openClient } from "@libstorage/client";
import type { ClientOptions } from "@libstorage/client";
import { StorageError } from "@libstorage/model";
import type { SessionReply, SessionRequest } from "../remote-client.js";

type Call = (params: object, body: unknown, context: object) => Promise<unknown>;

const options = JSON.parse(process.argv[2] ?? "{}") as ClientOptions;
const client = openClient(options) as unknown as Record<string, Call>;

function answer(reply: SessionReply): void {
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}

async function carryOut({ id, call, params, body, context }: SessionRequest): Promise<void> {
  try {
    answer({ id, value: await client[call]?.(params, body, context) });
  } catch (error) {
    const code = error instanceof StorageError ? error.code : "none";
    const { message } = error as Error;
    answer({ id, error: { code, message } });
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  void carryOut(JSON.parse(line) as SessionRequest);
});
