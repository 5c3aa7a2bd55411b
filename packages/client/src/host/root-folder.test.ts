import assert from "node:assert/strict";
import { it } from "node:test";
import { rootPathOf } from "./root-folder.js";

const mount = { preempt: false, path: "", fileMode: 0o700, retryCount: 0, retryWaitMs: 0 };

it("stays below the mount point", () => {
  const of = (rootPath: string): string => rootPathOf("/m/v", { ...mount, rootPath });
  assert.equal(of("/data"), "/m/v/data");
  assert.equal(of("data/x/"), "/m/v/data/x");
  assert.equal(of(""), "/m/v");
  assert.equal(of("/"), "/m/v");
  assert.equal(of("../../etc"), "/m/v/etc");
});
