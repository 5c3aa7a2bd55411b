import { testDriver } from "../conformance.js";
import { btrfsHarness } from "./btrfs-loop.js";
import { QUOTA_CASES } from "./btrfs-quota.js";
import { TRAP_CASES } from "./btrfs-traps.js";
import { FOLDER_CASES } from "./vfs-planted.js";

const SEE_GROUPS =
  "where an operation is cut does not depend on the quota: see btrfs with quota groups";

testDriver("btrfs with quota groups", btrfsHarness("qgroup", true), QUOTA_CASES);
testDriver("btrfs with simple quota", btrfsHarness("simple", SEE_GROUPS), QUOTA_CASES);
testDriver("btrfs without quota", btrfsHarness("off", SEE_GROUPS), [
  ...TRAP_CASES,
  ...FOLDER_CASES,
]);
