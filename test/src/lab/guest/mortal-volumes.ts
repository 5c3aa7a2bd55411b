/**
 * A client in a lab machine that ends with SIGKILL right before or right after one of its commands:
 * `mortal-volumes.js JSON`. Without a plan for its death it prints its commands.
 */
import { hostname } from "node:os";
import { openClient } from "@libstorage/client";
import { HostVolumes, loadSettings, runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";

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

const settings = await loadSettings({ env: process.env });
const client = openClient({ host: settings.host });
const volumes = new HostVolumes({
  service: client,
  name: plan.service,
  server: client.address,
  executors: {
    config: settings.config,
    libFolder: settings.folders.lib,
    hostName: hostname(),
    isRoot: true,
    exec,
  },
  operations: settings.operations,
  attachTimeoutMs: 120_000,
  scan: "quick",
  instanceIDCacheMs: 60_000,
});
if (plan.operation === "mount") await volumes.mount(plan.volume, {}, {});
else await volumes.unmount(plan.volume, {}, {});
client.close();
process.stdout.write(JSON.stringify(commands));
