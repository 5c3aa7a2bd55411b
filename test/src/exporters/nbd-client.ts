/** NBD clients that are not ours, at an export. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Hold } from "@libstorage/server";

export function uriOf({ attachment }: Hold): string {
  const { address = "", export: name = "" } = attachment.fields ?? {};
  return `nbd://${address}/${name}`;
}

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Not in one go: this process serves what the client asks for. */
export async function ended(file: string, ...args: readonly string[]): Promise<Ended> {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => (stdout += String(data)));
  child.stderr.on("data", (data) => (stderr += String(data)));
  await once(child, "close");
  return { status: child.exitCode, stdout, stderr };
}

export async function run(file: string, ...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await ended(file, ...args);
  assert.equal(status, 0, `${file} ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** Runs qemu-io commands at an export; all must succeed. */
export async function io(hold: Hold, ...commands: readonly string[]): Promise<void> {
  const args = ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), uriOf(hold)];
  const text = await run("qemu-io", ...args);
  assert.ok(!/Pattern verification failed|failed:/.test(text), text);
}
