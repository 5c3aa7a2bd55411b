/**
 * The fault run over vfs: each operation meets each fault at each command, file change and journal entry,
 * and after a restart it is either done or gone. Section 6 of docs/design.md.
 */
import { after, before, describe } from "node:test";
import { join } from "node:path";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import { FREE, HELD, SNAPSHOT, prepareWorld, vfsWorld } from "./world.js";

const scratch = makeScratch("faults");
const template = join(scratch.path, "template");
let folders = 0;

describe("faults in vfs", () => {
  before(() => prepareWorld(template));
  after(() => scratch.remove());

  faultSuite({
    name: "vfs",
    operations: operationsOn({ free: FREE, held: HELD, snapshot: SNAPSHOT }),
    make: () => {
      folders += 1;
      return vfsWorld(template, join(scratch.path, `case-${folders}`));
    },
    leastCases: 1000,
  });
});
