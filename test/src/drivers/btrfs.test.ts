import { testDriver } from "../conformance.js";
import { btrfsHarness } from "./btrfs-loop.js";

const SEE_GROUPS =
  "where an operation is cut does not depend on the quota: see btrfs with quota groups";

testDriver("btrfs with quota groups", btrfsHarness("qgroup", true));
testDriver("btrfs with simple quota", btrfsHarness("simple", SEE_GROUPS));
testDriver("btrfs without quota", btrfsHarness("off", SEE_GROUPS));
