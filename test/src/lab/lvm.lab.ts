/** The lvm-iscsi driver on a stock kernel, thin and thick. */
import { before, describe } from "node:test";
import { testDriver } from "../conformance.js";
import { insideOneMachine } from "./inside.js";
import { harnessOf, makeGroup, makePool, POOL } from "./lvm-group.js";

/** `npm test` gives a suite half an hour; who wants all cases has time. */
const LIMIT_MS = process.env["LIBSTORAGE_LAB_FULL"] === "1" ? 3 * 3_600_000 : 840_000;

insideOneMachine(import.meta.url, { diskMiB: [200_000], limitMs: LIMIT_MS }, () => {
  describe("LVM", () => {
    before(() => {
      makeGroup("/dev/vdc");
      makePool(POOL, "-L 20G");
    });
    testDriver("lvm-iscsi, thin", harnessOf(POOL));
    testDriver("lvm-iscsi, thick", harnessOf(undefined));
  });
});
