/**
 * The fault run over vfs: each operation meets each fault at each command, file change and journal entry,
 * and after a restart it is either done or gone. Section 6 of docs/design.md.
 */
import { after, before, describe } from "node:test";
import { join } from "node:path";
import { contentOperations, readAll } from "./content.js";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import { FREE, HELD, SERVICE, SNAPSHOT, openWorld, prepareWorld, vfsWorld } from "./world.js";

const scratch = makeScratch("faults");
const template = join(scratch.path, "template");
let folders = 0;
/** What a volume holds, as a stream. */
let content: Buffer;

describe("faults in vfs", () => {
  before(async () => {
    await prepareWorld(template);
    const storage = await openWorld(template);
    content = await readAll(storage.service(SERVICE), FREE);
    await storage.close();
  });
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

  faultSuite({
    name: "vfs content",
    operations: contentOperations(FREE, "tar", () => content),
    make: () => {
      folders += 1;
      return vfsWorld(template, join(scratch.path, `case-${folders}`));
    },
    leastCases: 50,
  });
});
