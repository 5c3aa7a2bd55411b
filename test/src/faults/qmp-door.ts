/**
 * What a server tells its storage daemons, and whom it kills, as points of its fault plan: a server that is dead
 * reaches nobody in this way either. Several servers run in one process; what is done belongs to the one in whose
 * name it was begun.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { Killed, Qmp } from "@libstorage/server";
import type { CountedFaults } from "@libstorage/server";

const servers = new AsyncLocalStorage<CountedFaults>();
/** The last connection to each monitor, by its path: a daemon takes one at a time. */
const monitors = new Map<string, Qmp>();
const connections = new Map<CountedFaults, Set<Qmp>>();

/** Runs what a server does. */
export function inServer<T>(plan: CountedFaults, act: () => Promise<T>): Promise<T> {
  return servers.run(plan, act);
}

/** The kernel closes what a server that is dead had open; a daemon has no other way to know. */
export function closeMonitors(plan: CountedFaults): void {
  for (const qmp of connections.get(plan) ?? []) qmp.close();
  connections.delete(plan);
}

/** Asks a daemon something, by the way of the server that drives it: a second client would keep the server out. */
export async function askMonitor(path: string, command: string): Promise<unknown> {
  const monitor = monitors.get(path);
  if (monitor === undefined) throw new Error(`no server drives ${path} now`);
  return servers.exit(() => monitor.execute(command));
}

function pass<T>(what: string, act: () => Promise<T>): Promise<T> {
  const plan = servers.getStore();
  return plan === undefined ? act() : plan.pass({ door: "qmp", what }, undefined, act);
}

/** From now on. @returns an end to it */
export function openQmpDoor(): () => void {
  const connect = Qmp.connect.bind(Qmp);
  const { prototype } = Qmp;
  const execute = Object.getOwnPropertyDescriptor(prototype, "execute") as PropertyDescriptor;
  const tell = execute.value as Qmp["execute"];
  const kill = process.kill.bind(process);
  Qmp.connect = (path, greetingMs) =>
    pass(`connect ${path}`, async () => {
      const qmp = await connect(path, greetingMs);
      monitors.set(path, qmp);
      const plan = servers.getStore();
      if (plan !== undefined) connections.set(plan, (connections.get(plan) ?? new Set()).add(qmp));
      void qmp.closed.then(() => {
        if (monitors.get(path) === qmp) monitors.delete(path);
      });
      return qmp;
    });
  Object.defineProperty(prototype, "execute", {
    ...execute,
    value(this: Qmp, command: string, ...more: [object?, number?]) {
      return pass(command, () => tell.call(this, command, ...more));
    },
  });
  process.kill = (pid, signal) => {
    if (servers.getStore()?.isDead === true) throw new Killed(`dead before it ended ${pid}`);
    return kill(pid, signal);
  };
  return () => {
    Qmp.connect = connect;
    Object.defineProperty(prototype, "execute", execute);
    process.kill = kill;
  };
}

/** Whether it only looks: a server that ends behind it leaves what it would have left before it. */
export function isLook({ door, what }: { readonly door: string; readonly what: string }): boolean {
  if (door === "exec") return what.startsWith("id ");
  return door === "qmp" && /^(?:connect |query-|qom-list|qmp_capabilities)/.test(what);
}
