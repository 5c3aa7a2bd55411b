/** One call of the block executor in a lab machine: `executor-call.js METHOD JSON`. Prints its answer as JSON. */
import { hostname } from "node:os";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { openExecutor, runCommand } from "@libstorage/client/host";
import type { Attached, Exec, WantedFileSystem } from "@libstorage/client/host";

export interface ExecutorCall {
  readonly method: "connect" | "disconnect" | "mount" | "unmount" | "expand" | "localDevices";
  readonly attached: Attached;
  readonly mountPoint?: string;
  readonly options?: string;
  readonly fileSystem?: WantedFileSystem;
  readonly timeoutMs?: number;
  readonly config?: Readonly<Record<string, unknown>>;
  /** Ends itself with SIGKILL before the n-th command, from 1, or after it. */
  readonly dieBefore?: number;
  readonly dieAfter?: number;
}

const call = JSON.parse(process.argv[2] ?? "{}") as ExecutorCall;
const commands: string[] = [];
const warnings: string[] = [];

const exec: Exec = async (file, args, options) => {
  commands.push([file, ...args].join(" "));
  if (commands.length === call.dieBefore) process.kill(process.pid, "SIGKILL");
  const at = commands.length;
  try {
    return await runCommand(file, args, options);
  } finally {
    if (at === call.dieAfter) process.kill(process.pid, "SIGKILL");
  }
};

async function run(): Promise<unknown> {
  const executor = openExecutor("lvm-iscsi", {
    config: new ScopedConfig([new ConfigTree(call.config ?? {})]),
    libFolder: "/var/lib/libstorage",
    hostName: hostname(),
    isRoot: true,
    exec,
    warn: (text) => warnings.push(text),
  });
  const { attached, mountPoint = "/mnt/v", options, fileSystem } = call;
  const { signal } = new AbortController();
  const limits = { signal, timeoutMs: call.timeoutMs ?? 60_000 };
  switch (call.method) {
    case "connect":
      return executor?.connect?.(attached, limits);
    case "disconnect":
      return executor?.disconnect?.(attached, limits);
    case "expand":
      return executor?.expand?.(attached, mountPoint, limits);
    case "mount":
      return executor?.mount?.({
        ...attached,
        mountPoint,
        signal,
        ...(options !== undefined && { options }),
        ...(fileSystem !== undefined && { fileSystem }),
      });
    case "unmount":
      return executor?.unmount?.({ ...attached, mountPoint, removeFolder: true, signal });
    case "localDevices":
      return executor?.localDevices("quick");
  }
}

const started = performance.now();
const answer = await run().then(
  (value) => ({ value }),
  (error: Error & { code?: string }) => ({ error: { code: error.code, message: error.message } }),
);
const ms = Math.round(performance.now() - started);
process.stdout.write(JSON.stringify({ ...answer, ms, commands, warnings }));
