/** A plugin that ends with SIGKILL in the middle of one call; see fault-suite.ts. */
import { FaultDoor } from "../docker/fault-door.js";
import { openTestPlugin } from "./csi-client.js";
import type { TestPluginOptions } from "./csi-client.js";

export interface FaultChildPlan extends Pick<
  TestPluginOptions,
  "host" | "folder" | "service" | "places"
> {
  readonly name: string;
  readonly request: object;
  readonly at: number;
}

const { name, request, at, ...options } = JSON.parse(process.argv[2] ?? "{}") as FaultChildPlan;
const door = new FaultDoor();
const { exec, wrapService } = door;
const plugin = await openTestPlugin({ ...options, exec, wrapService });
door.arm({ mode: "kill", at });
const error = await plugin.call(name, request).then(
  () => undefined,
  (failure: unknown) => String(failure),
);
const { passed } = door;
door.arm(undefined);
await plugin.stop(0);
process.stdout.write(JSON.stringify({ error, passed }));
