/** The lvm-iscsi driver on a stock kernel, thin and thick. */
import { before, describe } from "node:test";
import { testDriver } from "../conformance.js";
import { insideOneMachine } from "./inside.js";
import { harnessOf, makeGroup, makePool, POOL } from "./lvm-group.js";

insideOneMachine(import.meta.url, { diskMiB: [200_000], limitMs: 840_000 }, () => {
  describe("LVM", () => {
    before(() => {
      makeGroup("/dev/vdc");
      makePool(POOL, "-L 20G");
    });
    testDriver("lvm-iscsi, thin", harnessOf(POOL));
    testDriver("lvm-iscsi, thick", harnessOf(undefined));
  });
});
