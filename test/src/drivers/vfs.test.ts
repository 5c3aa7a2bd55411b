import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DRIVERS } from "@libstorage/server";
import { testDriver } from "../conformance.js";
import type { Harness, Place } from "../conformance/fixture.js";

/** An empty root below `folder`. */
async function placeIn(folder: string): Promise<Place> {
  const root = await mkdtemp(join(folder, "vfs-"));
  return {
    open: (context) => DRIVERS.vfs.open({ root, quota: "auto" }, context),
    leftovers: async () => [
      ...(await readdir(join(root, "vol"))),
      ...(await readdir(join(root, "snap"))),
    ],
    close: () => rm(root, { recursive: true }),
  };
}

const harness: Harness = {
  skip: false,
  isDurable: true,
  hasFolders: true,
  hasDoors: true,
  place: () => placeIn(tmpdir()),
};

testDriver("vfs", harness);
