import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { cannotMount } from "../../client/host-fixture.js";
import { faultSuite } from "./fault-suite.js";

faultSuite({
  name: "vfs",
  service: "vfs",
  isBlock: false,
  skip: cannotMount(),
  configuration: () => "",
  left({ vfsRoot }) {
    const folder = join(vfsRoot, "vol");
    return existsSync(folder) ? readdirSync(folder) : [];
  },
});
