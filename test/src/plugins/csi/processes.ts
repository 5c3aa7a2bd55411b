/** The server and plugins as processes of their own, which can end and begin again. */
import { join } from "node:path";
import { BIN, SERVER_BIN, ended, run, start } from "../../client/fixture.js";
import { until } from "../docker/container-host.js";
import { openCsiClient } from "./csi-client.js";
import type { CsiClient } from "./csi-client.js";

export interface Process {
  output(): string;
  /** Resolves when it has ended. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts a program and waits until it says that it is ready. */
export async function startProcess(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  isReady: RegExp,
): Promise<Process> {
  const child = start(file, args, env);
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk) => (output += String(chunk)));
  const end = ended(child);
  await until(`${args.join(" ")} is ready`, () => {
    if (child.exitCode !== null) throw new Error(`it ended: ${output}`);
    return isReady.test(output);
  });
  return {
    output: () => output,
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      await end;
    },
  };
}

/** @param file its configuration */
export function startServerProcess(file: string, folder: string): Promise<Process> {
  const env = { LIBSTORAGE_HOME: join(folder, "server-home") };
  return startProcess(SERVER_BIN, ["--config", file], env, /^ {2}endpoint /m);
}

/** Server and client certificates of a CA of its own, in a folder. */
export async function makeAuthority(folder: string): Promise<void> {
  const made = await run(SERVER_BIN, ["tls", "init", "--folder", folder, "--host", "127.0.0.1"]);
  if (made.code !== 0) throw new Error(made.stderr);
}

export interface PluginProcess extends CsiClient, Process {}

/** @param args besides the endpoint */
export async function startPluginProcess(
  folder: string,
  name: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<PluginProcess> {
  const socket = join(folder, `${name}.sock`);
  const words = ["plugin", "csi", "--endpoint", `unix://${socket}`, ...args];
  const home = { LIBSTORAGE_HOME: join(folder, name) };
  const running = await startProcess(BIN, words, { ...home, ...env }, /^ready: /m);
  const client = openCsiClient(socket);
  return {
    ...client,
    ...running,
    async stop(signal) {
      client.close();
      await running.stop(signal);
    },
  };
}
