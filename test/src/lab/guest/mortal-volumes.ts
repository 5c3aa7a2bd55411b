/**
 * A client in a lab machine that ends with SIGKILL right before or right after one of its commands:
 * `mortal-volumes.js JSON`. Without a plan for its death it prints its commands.
 */
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { openOwnHost } from "./own-host.js";

export interface MortalPlan {
  readonly operation: "mount" | "unmount";
  readonly volume: string;
  readonly service: string;
  /** The command at which it dies: a regular expression over its words. */
  readonly at?: string;
  readonly when?: "before" | "after";
}

const plan = JSON.parse(process.argv[2] ?? "{}") as MortalPlan;
const commands: string[] = [];

const exec: Exec = async (file, args, options) => {
  const line = [file, ...args].join(" ");
  commands.push(line);
  const isIt = plan.at !== undefined && new RegExp(plan.at).test(line);
  if (isIt && plan.when === "before") process.kill(process.pid, "SIGKILL");
  try {
    return await runCommand(file, args, options);
  } finally {
    if (isIt && plan.when === "after") process.kill(process.pid, "SIGKILL");
  }
};

const { client, volumes } = await openOwnHost({
  service: plan.service,
  exec,
  attachTimeoutMs: 120_000,
});
if (plan.operation === "mount") await volumes.mount(plan.volume, {}, {});
else await volumes.unmount(plan.volume, {}, {});
client.close();
process.stdout.write(JSON.stringify(commands));
