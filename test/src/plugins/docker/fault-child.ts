/** A plugin that ends with SIGKILL in the middle of one call; see faults.test.ts. */
import { setTimeout as sleep } from "node:timers/promises";
import { FaultDoor } from "./fault-door.js";
import { FAULT_SETTINGS } from "./fault-settings.js";
import { openPlugin } from "./plugin-fixture.js";

export interface FaultChildPlan {
  readonly host: string;
  readonly folder: string;
  readonly service: string;
  readonly places?: { readonly dev: string; readonly sys: string };
  readonly operation: string;
  readonly body: unknown;
  readonly at: number;
}

const { operation, body, at, ...place } = JSON.parse(process.argv[2] ?? "{}") as FaultChildPlan;
const door = new FaultDoor();
const { exec, wrapService } = door;
const plugin = await openPlugin({
  ...place,
  exec,
  wrapService,
  settings: FAULT_SETTINGS,
});
// What it does at its start is over then.
await sleep(50);
door.arm({ mode: "kill", at });
const { status, text } = await plugin.call(operation, body);
const { passed } = door;
door.arm(undefined);
await plugin.close();
process.stdout.write(JSON.stringify({ status, text, passed }));
