/** Every driver there is, by the name that a service's configuration uses. */
import type { DriverModule } from "../core/driver.js";
import { btrfs } from "./btrfs/index.js";
import { image } from "./image/index.js";
import { lvmIscsi } from "./lvm-iscsi/index.js";
import { mock } from "./mock/index.js";
import { vfs } from "./vfs/index.js";

export const DRIVERS = {
  btrfs,
  image,
  "lvm-iscsi": lvmIscsi,
  mock,
  vfs,
} as const satisfies Record<string, DriverModule>;
