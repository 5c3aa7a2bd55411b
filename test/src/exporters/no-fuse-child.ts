/** A server where nothing is at /dev/fuse: what it says of a file, and that its other exports are as ever. */
import type { StorageError } from "@libstorage/model";
import { makeScratch } from "../faults/folders.js";
import { DoorHost } from "./door-host.js";

const scratch = makeScratch("nf");
const host = await DoorHost.open(scratch.path);
const volumeID = await host.volume();
const refused = await host.add({ volumeID, type: "fuse" }).then(
  () => undefined,
  ({ code, message }: StorageError) => ({ code, message }),
);
const left = await host.exports();
const other = await host.add({ volumeID, type: "nbd" });
await host.clear();
await host.close();
await scratch.remove();
process.stdout.write(JSON.stringify({ refused, left, other: other.exporter }));
