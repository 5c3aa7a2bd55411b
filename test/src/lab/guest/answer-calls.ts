/**
 * Runs in a machine: answers calls that come as lines of JSON on standard input. In: `{ id, call, args }`. Out: `{ ready }`,
 * then `{ id, value }` or `{ id, error }`, and `{ note }` in between.
 */
import { createInterface } from "node:readline";
import { StorageError } from "@libstorage/model";

export interface Call {
  readonly id: number;
  readonly call: string;
  readonly args: readonly unknown[];
}

export interface Answer {
  readonly ready?: boolean;
  readonly note?: string;
  readonly id?: number;
  readonly value?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

export function say(answer: Answer): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

/** @param calls an object with a method by each name */
export function answerCalls(calls: object): void {
  const byName = calls as Record<string, (...args: readonly unknown[]) => unknown>;
  const carryOut = async ({ id, call, args }: Call): Promise<void> => {
    try {
      say({ id, value: await byName[call]?.(...args) });
    } catch (error) {
      const code = error instanceof StorageError ? error.code : "none";
      say({ id, error: { code, message: (error as Error).message } });
    }
  };
  createInterface({ input: process.stdin }).on("line", (line) => {
    void carryOut(JSON.parse(line) as Call);
  });
  say({ ready: true });
}
