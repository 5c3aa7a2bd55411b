/** A qcow2 volume on another host by NBD, FUSE and a loop device, against the same commands by hand. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { openExecutor, runCommand } from "@libstorage/client/host";
import type { Attached, Executor } from "@libstorage/client/host";
import { ScopedConfig, formatInstanceID } from "@libstorage/model";
import { onEnd } from "./fixture.js";
import {
  command,
  daemonByHand,
  daemonFolder,
  endDaemon,
  missing,
  openImages,
  timed,
} from "./image-fixture.js";
import type { AttachReply, ImageServer } from "./image-fixture.js";
import { alternate, figure, measuredUnless, median } from "./measure.js";

const ROUNDS = 9;
const SIZE_GIB = 10;

function whyNot(): string | undefined {
  if (process.geteuid?.() !== 0) return "only root can attach";
  if (!existsSync("/dev/fuse")) return "this kernel has no FUSE";
  if (!existsSync("/dev/loop-control")) return "this kernel has no loop devices";
  return missing("qemu-img", "qemu-storage-daemon", "losetup");
}

/** The server's attach and the client's part; the client is a process that runs already, as a plugin is. */
async function attach(images: ImageServer, executor: Executor, volumeID: string): Promise<number> {
  const metadata = { hostName: "bench-host", addresses: ["127.0.0.1"] };
  const host = { id: "bench-host", driver: "image", service: "", metadata };
  const headers = { "Libstorage-Instanceid": formatInstanceID(host) };
  const limits = { timeoutMs: 60_000, signal: AbortSignal.timeout(60_000) };
  const path = `/volumes/image/${volumeID}`;
  let attached: Attached | undefined;
  const ms = await timed(async () => {
    const reply = await images.call<AttachReply>("POST", `${path}?attach`, {}, headers);
    const [one] = reply.volume.attachments;
    if (one === undefined) throw new Error("the volume is not attached");
    attached = { volumeID, device: one.deviceName, fields: one.fields ?? {} };
    await executor.connect?.(attached, limits);
  });
  if (attached === undefined || !existsSync(attached.device)) throw new Error("there is no device");
  await executor.disconnect?.(attached, limits);
  await images.call("POST", `${path}?detach`, {}, headers);
  return ms;
}

/** A daemon on the storage host, one on the other host that shows its export as a file, and a loop device. */
async function attachByHand(folder: string, image: string, port: number): Promise<number> {
  const [server, client] = [join(folder, "server"), join(folder, "client")];
  const disk = join(client, "disk");
  for (const one of [server, client]) mkdirSync(one, { recursive: true });
  await command("truncate", "--size=0", disk);
  const pids: number[] = [];
  let device = "";
  const ms = await timed(async () => {
    pids.push(
      await daemonByHand(server, [
        `--blockdev=driver=file,node-name=file,filename=${image}`,
        "--blockdev=driver=qcow2,node-name=volume,file=file",
        `--nbd-server=addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`,
        "--export=type=nbd,id=e0,node-name=volume,name=by-hand,writable=on",
      ]),
    );
    const from = `server.type=inet,server.host=127.0.0.1,server.port=${port},export=by-hand`;
    pids.push(
      await daemonByHand(client, [
        `--blockdev=driver=nbd,node-name=remote,${from}`,
        `--export=type=fuse,id=disk,node-name=remote,mountpoint=${disk},writable=on`,
      ]),
    );
    device = (await command("losetup", "--find", "--show", "--direct-io=on", "--", disk)).trim();
  });
  await command("losetup", "--detach", device);
  for (const pid of pids.toReversed()) await endDaemon(pid);
  return ms;
}

/** Loop devices and mounts that a run which failed has left in a folder. */
function clearIn(folder: string): void {
  const { stdout } = spawnSync("losetup", ["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
  for (const line of String(stdout)
    .split("\n")
    .filter((one) => one.includes(`${folder}/`)))
    spawnSync("losetup", ["--detach", line.split(/\s/)[0] ?? ""]);
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const point = line.split(" ")[4] ?? "";
    if (point.startsWith(`${folder}/`)) spawnSync("umount", ["--lazy", "--", point]);
  }
}

export const imageAttach = measuredUnless(whyNot, async (say) => {
  const images = await openImages();
  const folder = daemonFolder();
  const libFolder = join(images.folder, "client");
  mkdirSync(libFolder);
  const executor = openExecutor("image", {
    config: new ScopedConfig([]),
    libFolder,
    hostName: hostname(),
    isRoot: true,
    exec: runCommand,
  });
  if (executor === undefined) throw new Error("the client knows no image volumes");
  for (const one of [folder, libFolder]) onEnd(() => clearIn(one));
  const volumeID = await images.volume("qcow2", SIZE_GIB);
  const image = join(folder, "disk.qcow2");
  await command("qemu-img", "create", "-q", "-f", "qcow2", image, `${SIZE_GIB}G`);
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    () => attach(images, executor, volumeID),
    () => attachByHand(folder, image, 19_437),
  );
  const [ours, theirs] = [sides.ours, sides.theirs].map((all) => Math.round(median(all)));
  say(`attached in ${ours} ms, by hand in ${theirs} ms`);
  await images.stop();
  const name = `attach of a ${SIZE_GIB} GiB qcow2 by NBD and FUSE until its loop device, over the commands`;
  return [figure(name, ratio, 1.5, "lower")];
});
