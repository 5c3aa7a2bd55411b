/** lvm-iscsi: each volume and each snapshot is a logical volume, with its record in its tags. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { GIB, parseSize } from "@libstorage/model";
import { defineDriver } from "../../core/driver.js";
import { LvmConfig } from "./config.js";
import { LvmDriver } from "./driver.js";
import { Known } from "./known.js";
import { Layouts } from "./layouts.js";
import { Lvm } from "./lvm.js";
import { namesWith } from "./names.js";
import { checkPool, checkZeroing, openGroup, poolIn } from "./opening.js";
import { PoolGuard } from "./pool-guard.js";
import { ThickLayout } from "./thick.js";
import { ThinLayout } from "./thin.js";
import { Wiping } from "./wiping.js";

/** Where services lock their part of a group against other servers. It is empty after a boot. */
const LOCKS = "/run/lock/libstorage/lvm-iscsi";

export const lvmIscsi = defineDriver({
  name: "lvm-iscsi",
  config: LvmConfig,
  async open(config, context) {
    const { volumeGroup, thinPool, prefix, wipe, snapshotPercent, watchSeconds, defaultSize } =
      config;
    const lvm = new Lvm({ group: volumeGroup, pool: thinPool, extentBytes: 0 });
    const group = await openGroup(lvm, context);
    lvm.about = { ...lvm.about, extentBytes: group.extentBytes };
    const names = namesWith(prefix);
    const known = new Known();
    const wiping = new Wiping({ lvm, known, kind: wipe });
    const rows = await lvm.lvs(context);
    const pool = thinPool === undefined ? undefined : poolIn(rows, lvm, thinPool);
    if (pool !== undefined) checkPool(pool, lvm);
    if (wipe === "zero" && pool !== undefined) checkZeroing(pool, lvm);
    const isZeroing = pool?.state.isZeroing ?? false;
    const usual = config.provisioning ?? (pool === undefined ? "thick" : "thin");
    const layouts = new Layouts({
      thin: new ThinLayout({ lvm, known, names, wiping, isZeroing }),
      thick: new ThickLayout({ lvm, known, names, wiping, snapshotPercent }),
      hasPool: pool !== undefined,
      usual,
    });
    const guard =
      pool === undefined
        ? undefined
        : new PoolGuard({ lvm, names, known, config: config.pool, first: pool, context });
    const lockFolder = join(LOCKS, `${volumeGroup}.${prefix}`);
    await mkdir(lockFolder, { recursive: true, mode: 0o700 });
    const driver = new LvmDriver(
      {
        lvm,
        known,
        names,
        layouts,
        isUsuallyThin: usual === "thin",
        group,
        watchSeconds,
        guard,
        lockFolder,
        isWipingSlow: wipe === "zero",
        defaultSizeBytes: parseSize(defaultSize) ?? GIB,
      },
      context,
    );
    await driver.wake(rows, context);
    await guard?.start();
    return driver;
  },
});
