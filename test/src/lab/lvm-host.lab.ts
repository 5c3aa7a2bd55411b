/** The lvm-iscsi driver and its host: devices, other hands, a pool that fills. */
import { before, describe } from "node:test";
import { insideOneMachine } from "./inside.js";
import { makeGroup, makePool, POOL } from "./lvm-group.js";
import { hostTests } from "./lvm-devices.js";
import { handTests } from "./lvm-hands.js";
import { poolTests } from "./lvm-pool.js";

insideOneMachine(import.meta.url, { diskMiB: [20_000, 2_000], limitMs: 1_700_000 }, () => {
  describe("LVM and its host", () => {
    before(() => {
      makeGroup("/dev/vdc");
      makePool(POOL, "-L 2G");
    });
    hostTests();
    handTests();
    poolTests();
  });
});
