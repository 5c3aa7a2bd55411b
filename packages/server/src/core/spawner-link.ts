/** The server's end of its spawner: one for the whole process, started with the first command. */
// oxlint-disable-next-line no-restricted-imports -- here is where the commands of core/exec.ts are started
import { fork, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { StorageError } from "@libstorage/model";
import { killGroup } from "./spawner-messages.js";
import type { Command, Ending, Report, Request } from "./spawner-messages.js";

const SPAWNER = fileURLToPath(new URL("spawner.js", import.meta.url));

/** What a caller wants to see of a command while it runs. */
export interface Watch {
  /** Told of the process id, which is that of its process group, too. */
  readonly onStart?: ((pid: number) => void) | undefined;
  /** Told of pieces of its standard output, for a command that `isWatched`. */
  readonly onOutput?: ((text: string) => void) | undefined;
}

interface Pending {
  readonly spawner: ChildProcess;
  readonly watch: Watch;
  readonly onEnd: (ending: Ending) => void;
  /** Once it runs, with that of the one it is joined with. */
  pids: readonly number[];
}

const pending = new Map<number, Pending>();
let current: ChildProcess | undefined;
let lastID = 0;

/** What runs ends with this process. The spawner sees to it too, a moment later. */
process.once("exit", killAll);

function killAll(): void {
  for (const { pids } of pending.values()) for (const pid of pids) killGroup(pid, "SIGKILL");
}

/** A command on its way. */
export interface Started {
  readonly ending: Promise<Ending>;
  /** Asks it to end, with all that it has started, and makes it end when it does not. */
  readonly end: () => void;
}

/**
 * Has a command started by the spawner, with the environment that this process had at the first one, in
 * the C locale.
 */
export function startCommand(start: Command, watch: Watch = {}): Started {
  const spawner = current ?? open();
  lastID += 1;
  const id = lastID;
  const say = (request: Request): void => {
    // One that has ended says so by its channel.
    spawner.send(request, () => {});
  };
  const ending = new Promise<Ending>((onEnd) => {
    if (pending.size === 0) hold(spawner);
    pending.set(id, { spawner, watch, onEnd, pids: [] });
  });
  say({ id, start });
  return { ending, end: () => pending.has(id) && say({ id, end: true }) };
}

function open(): ChildProcess {
  // Half an installation: without this the fault would look like the command's.
  if (!existsSync(SPAWNER))
    throw new StorageError("internal", `${SPAWNER} is missing; build or install the server again`);
  const spawner = fork(SPAWNER, {
    // What is meant for the server's terminal is not for it, nor are the flags of a debugger.
    detached: true,
    execArgv: [],
    env: { ...process.env, LC_ALL: "C" },
    serialization: "advanced",
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  spawner.on("error", () => lose(spawner));
  if (spawner.pid === undefined)
    throw new StorageError(
      "resource-exhausted",
      "the process that starts commands cannot be started; this host has too many processes or open files",
    );
  spawner.on("message", heard);
  // Only when all its reports have been read.
  spawner.on("disconnect", () => lose(spawner));
  letGo(spawner);
  current = spawner;
  return spawner;
}

function heard(report: Report): void {
  const one = pending.get(report.id);
  if (one === undefined) return;
  if ("pid" in report) {
    one.pids = report.intoPid === undefined ? [report.pid] : [report.pid, report.intoPid];
    one.watch.onStart?.(report.pid);
  } else if ("output" in report) one.watch.onOutput?.(report.output);
  else settle(report.id, one, report.ending);
}

function settle(id: number, one: Pending, ending: Ending): void {
  pending.delete(id);
  if (pending.size === 0) letGo(one.spawner);
  one.onEnd(ending);
}

/** The spawner has ended: nobody waits for its commands any more, so they must not go on either. */
function lose(spawner: ChildProcess): void {
  if (current === spawner) current = undefined;
  for (const [id, one] of pending)
    if (one.spawner === spawner) {
      for (const pid of one.pids) killGroup(pid, "SIGKILL");
      settle(id, one, { isLost: true, stdout: "", stderr: "" });
    }
}

/** Keeps this process running while a command does. */
function hold(spawner: ChildProcess): void {
  spawner.ref();
  spawner.channel?.ref();
}

/** An idle spawner keeps nobody from ending. */
function letGo(spawner: ChildProcess): void {
  spawner.unref();
  spawner.channel?.unref();
}
