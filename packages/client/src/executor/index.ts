/** The table of executors: a line for each driver that this client can use. */
import type { Executor, ExecutorContext } from "./executor.js";
import { openBlock } from "./block.js";
import { openMock } from "./mock.js";
import { openVfs } from "./vfs.js";

export const EXECUTORS: Readonly<Record<string, (context: ExecutorContext) => Executor>> = {
  btrfs: (context) => openVfs(context, "btrfs"),
  image: (context) => openBlock(context, "image"),
  "lvm-iscsi": (context) => openBlock(context, "lvm-iscsi"),
  mock: openMock,
  vfs: (context) => openVfs(context),
};

/** @returns undefined for a driver that this client does not know */
export function openExecutor(driver: string, context: ExecutorContext): Executor | undefined {
  const name = driver.toLowerCase();
  return Object.hasOwn(EXECUTORS, name) ? EXECUTORS[name]?.(context) : undefined;
}
