/** The lvm-iscsi driver over a volume group in memory. Each command passes the door, as a real one does. */
import { CommandError, DRIVERS } from "@libstorage/server";
import type { DriverContext, Exec, OpContext, StorageDriver } from "@libstorage/server";
import { VolumeGroupModel } from "./lvm-model.js";

/**
 * What runs is `true`; the group changes when it has started. So a command that fails at the door changes nothing,
 * and one whose answer is lost has done its work.
 */
function execOver(model: VolumeGroupModel, exec: Exec): Exec {
  return async (file, args, signal, { input, onStart } = {}) => {
    let ended: ReturnType<VolumeGroupModel["run"]> | undefined;
    await exec("true", [], signal, {
      onStart: (pid) => {
        ended = model.run(file, args, input);
        onStart?.(pid);
      },
    });
    if (ended === undefined) throw new Error(`${file} did not start`);
    if (ended.exitCode !== 0) throw new CommandError(file, args, ended);
    return ended;
  };
}

function isContext(value: unknown): boolean {
  return typeof value === "object" && value !== null && "exec" in value;
}

type Method = (...args: readonly unknown[]) => unknown;

/** The same object, whose methods get contexts that lead to the group in memory. */
function over<T extends object>(object: T, model: VolumeGroupModel): T {
  return new Proxy(object, {
    get(target, name) {
      const member = Reflect.get(target, name, target) as unknown;
      // Whoever holds a volume in memory holds it on this host.
      if (name === "isHostBound") return false;
      if (name === "snapshots" || name === "reverts") return over(member as object, model);
      if (typeof member !== "function") return member;
      const method = (member as Method).bind(target);
      return (...args: readonly unknown[]) => {
        // Wherever it stands: one that is missed would lead to the LVM of this host.
        const at = args.findIndex(isContext);
        if (at === -1) return method(...args);
        const context = args[at] as OpContext;
        return method(...args.with(at, { ...context, exec: execOver(model, context.exec) }));
      };
    },
  });
}

export async function openOver(
  model: VolumeGroupModel,
  config: object,
  context: DriverContext,
): Promise<StorageDriver> {
  const own = { ...context, exec: execOver(model, context.exec) };
  return over(await DRIVERS["lvm-iscsi"].open(config, own), model);
}

/** A driver over a new group with a thin pool, closed after `act`. @param config checked */
export async function withDriverOver(
  config: { readonly volumeGroup: string },
  context: DriverContext,
  act: (driver: StorageDriver, model: VolumeGroupModel) => Promise<void>,
): Promise<void> {
  const model = new VolumeGroupModel(config.volumeGroup, "pool");
  const driver = await openOver(model, config, context);
  try {
    await act(driver, model);
  } finally {
    await driver.close();
  }
}
