/**
 * The program `lsx`, sections 17.1 and 18 of the contract: `lsx DRIVER COMMAND [ARGS]`, with the outputs and
 * exit codes that clients of the reference expect. It is served as one file that has no dependencies.
 */
import { hostname, userInfo } from "node:os";
import { statSync } from "node:fs";
import { lstat } from "node:fs/promises";
import {
  appFolders,
  environmentLayer,
  formatInstanceID,
  formatLocalDevices,
  parseDuration,
  ScopedConfig,
} from "@libstorage/model";
import type { ExecutorContext, Scan } from "./executor.js";
import type { Executor } from "./executor.js";
import { supportedMask } from "./executor.js";
import { runCommand } from "./exec.js";
import { openExecutor } from "./index.js";
import { waitForDevice } from "./wait.js";

const EXIT = { success: 0, failed: 1, unimplemented: 2, timedOut: 255 } as const;

interface Result {
  readonly exit: number;
  readonly stdout?: string;
  readonly stderr?: string;
}

const USAGE = `usage: lsx DRIVER supported
       lsx DRIVER instanceID
       lsx DRIVER nextDevice
       lsx DRIVER localDevices SCAN
       lsx DRIVER wait SCAN TOKEN TIMEOUT
       lsx DRIVER mounts
       lsx DRIVER mount [-l LABEL] [-o OPTIONS] DEVICE PATH
       lsx DRIVER umount PATH
SCAN is 0 or quick, 1 or deep. TIMEOUT is a duration such as 30s.
`;

const misused: Result = { exit: EXIT.failed, stderr: USAGE };
const unimplemented: Result = { exit: EXIT.unimplemented };

function scanOf(text: string): Scan {
  return /^(?:1|deep)$/i.test(text) ? "deep" : "quick";
}

type Run = (executor: Executor, args: readonly string[]) => Promise<Result>;

interface LsxCommand {
  /** As errors name it. */
  readonly name: string;
  readonly least: number;
  readonly run: Run;
}

const unmount: LsxCommand = {
  name: "umount",
  least: 1,
  async run(executor, [path = ""]) {
    if (executor.unmount === undefined) return unimplemented;
    // Here, as in the reference, a mount point that is not there is an error.
    await lstat(path);
    const { signal } = new AbortController();
    await executor.unmount({ mountPoint: path, removeFolder: true, signal });
    return { exit: 0, stdout: `${path}\n` };
  },
};

const COMMANDS: Readonly<Record<string, LsxCommand>> = {
  supported: {
    name: "supported",
    least: 0,
    run: async (executor) => ({ exit: 0, stdout: String(supportedMask(executor)) }),
  },
  instanceid: {
    name: "instanceID",
    least: 0,
    run: async (executor) => ({ exit: 0, stdout: formatInstanceID(await executor.instanceID()) }),
  },
  nextdevice: {
    name: "nextDevice",
    least: 0,
    run: async (executor) => ({ exit: 0, stdout: `${(await executor.nextDevice?.()) ?? ""}\n` }),
  },
  localdevices: {
    name: "localDevices",
    least: 1,
    run: async (executor, [scan = ""]) => ({
      exit: 0,
      stdout: formatLocalDevices(await executor.localDevices(scanOf(scan))),
    }),
  },
  wait: { name: "wait", least: 3, run: wait },
  mounts: {
    name: "mounts",
    least: 0,
    async run(executor) {
      if (executor.mounts === undefined) return unimplemented;
      return { exit: 0, stdout: JSON.stringify(await executor.mounts()) };
    },
  },
  mount: { name: "mount", least: 2, run: mount },
  umount: unmount,
  unmount,
};

async function wait(executor: Executor, args: readonly string[]): Promise<Result> {
  const [scan = "", token = "", timeout = ""] = args;
  if (!executor.waits) return unimplemented;
  const timeoutMs = parseDuration(timeout);
  if (timeoutMs === undefined)
    return { exit: EXIT.failed, stderr: `error: invalid duration ${timeout}\n` };
  const result = await waitForDevice(executor, { token, scan: scanOf(scan), timeoutMs });
  const stdout = formatLocalDevices(result.devices);
  return { exit: result.found ? EXIT.success : EXIT.timedOut, stdout };
}

async function mount(executor: Executor, args: readonly string[]): Promise<Result> {
  if (executor.mount === undefined) return unimplemented;
  let options: string | undefined;
  const rest: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at] ?? "";
    // No driver here names the file systems it mounts.
    if (word === "-l") at += 1;
    else if (word === "-o") options = args[(at += 1)];
    else rest.push(word);
  }
  const [device, mountPoint] = rest;
  if (device === undefined || mountPoint === undefined) return misused;
  await executor.mount({
    device,
    mountPoint,
    signal: new AbortController().signal,
    ...(options !== undefined && { options }),
  });
  return { exit: 0, stdout: `${mountPoint}\n` };
}

/** The client that runs this hands its whole configuration on in the environment. */
function contextOf(env: NodeJS.ProcessEnv): ExecutorContext {
  const user = userInfo();
  const isRoot = user.uid === 0;
  const isFolder = (path: string): boolean =>
    statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  const folders = appFolders(env, { isRoot, home: user.homedir }, isFolder);
  return {
    config: new ScopedConfig([environmentLayer(env)]),
    libFolder: folders.lib,
    hostName: hostname(),
    isRoot,
    exec: runCommand,
  };
}

/** One call of the program. */
export async function lsx(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<Result> {
  const [driver, word, ...args] = argv;
  if (driver === undefined || word === undefined) return misused;
  const executor = openExecutor(driver, contextOf(env));
  if (executor === undefined)
    return { exit: EXIT.failed, stderr: "error: invalid executor name\n" };
  const key = word.toLowerCase();
  const command = Object.hasOwn(COMMANDS, key) ? COMMANDS[key] : undefined;
  if (command === undefined || args.length < command.least) return misused;
  try {
    return await command.run(executor, args);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { exit: EXIT.failed, stderr: `error: error getting ${command.name}: ${text}\n` };
  }
}
