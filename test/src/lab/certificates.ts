/** Certificates for a service on host `a` and its client on host `b`. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "./image.js";

/** Made out here: finding primes takes the machines minutes. */
export function certificates(): (name: string) => Buffer {
  const folder = mkdtempSync(join(tmpdir(), "lab-tls-"));
  const program = join(ROOT, "packages/server/bin/libstorage-server.mjs");
  const tls = (...args: string[]): Buffer =>
    execFileSync(process.execPath, [program, "tls", ...args, "--folder", folder]);
  try {
    tls("init", "--host", "a");
    tls("client", "--name", "b");
    const files = new Map(
      readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]),
    );
    return (name) => files.get(name) ?? assert.fail(`no ${name} was made`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
