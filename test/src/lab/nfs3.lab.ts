/** NFS 3 by the kernel: a host that holds a lock is cut off, and the others go on. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { LabProcess } from "./channel.js";
import { NfsHosts, ROOT, SERVICE } from "./nfs-hosts.js";

/** Locks are asked for by way of the port mapper, and each end wants to know when the other one starts again. */
const START_LOCKING =
  "mkdir -p /run/rpcbind; rpcinfo -p > /dev/null 2>&1 || rpcbind -w; rpcinfo -u localhost status > /dev/null 2>&1 || rpc.statd";

let hosts: NfsHosts;

/** Takes a lock on a file of a volume, as programs do, and keeps it. */
async function holdLock(at: string): Promise<LabProcess> {
  const command = "sh -c 'echo locked; exec sleep 3600'";
  const holder = hosts.b.start(`exec flock --no-fork ${at}/lock ${command}`);
  // After its start the lock manager waits almost a minute for those who had locks before.
  await holder.says(/locked/, 180_000);
  return holder;
}

async function mountNew(name: string): Promise<{ readonly id: string; readonly at: string }> {
  const id = await hosts.create(name);
  const attachment = await hosts.attach(id);
  assert.equal(attachment.fields?.["version"], "3");
  await hosts.mount(attachment, `/mnt/${name}`);
  assert.match(await hosts.b.run(`grep ' /mnt/${name} ' /proc/mounts`), /vers=3/);
  return { id, at: `/mnt/${name}` };
}

async function remove({ id, at }: { readonly id: string; readonly at: string }): Promise<void> {
  await hosts.b.run(`umount -l ${at}`);
  await hosts.detach(id);
  await hosts.client.call("volumeRemove", { ...SERVICE, volumeID: id }, undefined);
}

async function cutsOffALock(): Promise<void> {
  const { a, b } = hosts;
  const locks = async (): Promise<number> =>
    Number(await a.run("grep -c POSIX /proc/locks || true"));
  const before = await locks();
  const locked = await mountNew("locked");
  const beside = await mountNew("beside");
  const holder = await holdLock(locked.at);
  const bystander = await holdLock(beside.at);
  // Both are the lock manager's, on the storage host.
  assert.equal(await locks(), before + 2);
  await b.run(`echo before > ${locked.at}/file && sync ${locked.at}/file`);
  await a.run(`libstorage volume attach --force ${locked.id}`, { limitMs: 180_000 });
  const share = `/srv/libstorage/fast/${locked.id}`;
  assert.doesNotMatch(await a.run("cat /proc/mounts"), new RegExp(`${share}/`));
  const then = await hosts.stateOf(locked.id);
  await b.attempt(`echo after > ${locked.at}/file && sync ${locked.at}/file`, { limitMs: 60_000 });
  assert.equal(await hosts.stateOf(locked.id), then, "a write came after the answer");
  assert.equal(await a.run(`cat ${ROOT}/vol/${locked.id}/file`), "before");
  // The other volume goes on, and what keeps the host's own programs apart does so still.
  await b.run(`echo still > ${beside.at}/still && sync ${beside.at}/still`);
  assert.equal((await b.attempt(`flock --nonblock ${beside.at}/lock true`)).code, 1);
  for (const one of [holder, bystander]) one.signal("SIGKILL");
  await a.run(`libstorage volume detach ${locked.id}`);
  await b.run(`umount -l ${locked.at}`);
  const again = await hosts.attach(locked.id);
  await hosts.mount(again, locked.at);
  await b.run(`flock --timeout 60 ${locked.at}/lock cat ${locked.at}/file`);
  for (const one of [locked, beside]) await remove(one);
}

describe("NFS 3 by the kernel", { timeout: 1_200_000 }, () => {
  before(async () => {
    hosts = await NfsHosts.start({ version: "3" });
    for (const machine of [hosts.a, hosts.b]) await machine.run(START_LOCKING);
  });
  after(async () => hosts?.remove());

  it("takes a volume from a host that holds a lock in it, and no other host's", cutsOffALock);
});
