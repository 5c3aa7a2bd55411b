/** A client that is killed with SIGKILL at one point of a mount or an unmount; see crash.test.ts. */
import { openClient } from "@libstorage/client";
import type { CallContext, VolumeService } from "@libstorage/model";
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { openHost } from "./host-fixture.js";

export interface CrashPlan {
  readonly host: string;
  readonly folder: string;
  readonly isRoot: boolean;
  readonly operation: "mount" | "unmount";
  readonly volume: string;
  /** The point at which to die, from 1. Each call and each command has two: before and after. */
  readonly at: number;
}

const plan = JSON.parse(process.argv[2] ?? "{}") as CrashPlan;
let passed = 0;

function point(): void {
  passed += 1;
  if (passed === plan.at) process.kill(process.pid, "SIGKILL");
}

const exec: Exec = async (file, args, options) => {
  point();
  const result = await runCommand(file, args, options);
  point();
  return result;
};

type Call = (params: object, body: unknown, context: CallContext) => Promise<unknown>;

function mortal(service: VolumeService): VolumeService {
  return new Proxy(service, {
    get(target, name) {
      const call = Reflect.get(target, name) as Call;
      return async (params: object, body: unknown, context: CallContext) => {
        point();
        const reply = await call(params, body, context);
        point();
        return reply;
      };
    },
  });
}

const client = openClient({ host: plan.host });
const { folder, isRoot } = plan;
const { volumes } = await openHost(mortal(client), { folder, isRoot, exec });
if (plan.operation === "mount") await volumes.mount(plan.volume, {}, {});
else await volumes.unmount(plan.volume, {}, {});
client.close();
process.stdout.write(String(passed));
