/** Reads of 4 KiB over TCP, plain and with TLS, one after another: the server's gate against a plain TCP echo. */
import { readFileSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import type { ConnectionOptions } from "node:tls";
import { makeCA, makeCertificate } from "@libstorage/server";
import { serve, workFolder } from "./fixture.js";
import { MIB, command, missing, openImages } from "./image-fixture.js";
import type { ImageServer } from "./image-fixture.js";
import { alternate, figure, measuredUnless, median, ratioOfBest } from "./measure.js";
import type { Figure, Say } from "./measure.js";
import { connected, openExport, readBlocks, secured } from "./nbd-reads.js";

/** Short ones, and many: what else the host does then falls on both sides. */
const ROUNDS = 31;
const SECONDS = 0.25;
const AREA_BYTES = 64 * MIB;
const LIMIT = 0.7;
/** A delayed acknowledgement takes 40 ms, more than a hundred times a read. */
const SLOW_LIMIT = 10;

/** Certificates of a CA of their own, for both ends. */
async function makePki(): Promise<string> {
  const folder = workFolder();
  const ca = await makeCA({ commonName: "bench CA", days: 2 });
  writeFileSync(join(folder, "ca.crt"), ca.certificate);
  for (const purpose of ["server", "client"] as const) {
    const names = purpose === "server" ? ["127.0.0.1", "localhost"] : [];
    const made = await makeCertificate(purpose, ca, { commonName: "bench", days: 2, names });
    writeFileSync(join(folder, `${purpose}.crt`), made.certificate);
    writeFileSync(join(folder, `${purpose}.key`), made.key, { mode: 0o600 });
  }
  return folder;
}

function clientTls(folder: string): ConnectionOptions {
  const read = (name: string): Buffer => readFileSync(join(folder, name));
  return { ca: read("ca.crt"), cert: read("client.crt"), key: read("client.key") };
}

async function openDoor(images: ImageServer, tls?: ConnectionOptions): Promise<Socket> {
  const volumeID = await images.volume("raw");
  // Before it is exported: then nobody else can write.
  const fill = ["-c", `write -P 7 0 ${AREA_BYTES}`, "-c", "flush"];
  await command("qemu-io", "-f", "raw", ...fill, images.diskOf(volumeID, "raw"));
  const { fields } = await images.add(volumeID, { writable: true });
  const [host = "", port] = (fields["address"] ?? "").split(":");
  return openExport({ host, port: Number(port) }, fields["export"] ?? "", tls);
}

/** The echo's connection: the same bytes back and forth, with nothing behind it. */
async function openEcho(folder?: string): Promise<{ stream: Socket; stop(): Promise<void> }> {
  const echo = await serve("serve-echo.js", folder === undefined ? [] : [folder]);
  const socket = await connected({ host: "127.0.0.1", port: Number(echo.url) });
  const stream = folder === undefined ? socket : await secured(socket, clientTls(folder));
  return {
    stream,
    async stop() {
      stream.destroy();
      await echo.stop();
    },
  };
}

/** The time that one read in a thousand takes or more. */
function slowOf(times: Float64Array): number {
  return times[Math.floor(times.length * 0.999)] ?? Number.NaN;
}

async function compare(
  name: string,
  ours: Socket,
  theirs: Socket,
  say: Say,
): Promise<{ readonly ratio: number; readonly slow: number }> {
  const slow = { ours: [] as number[], theirs: [] as number[] };
  const slowest = { ours: 0, theirs: 0 };
  const reading = (side: "ours" | "theirs", stream: Socket) => async (): Promise<number> => {
    const { perSecond, times } = await readBlocks(stream, AREA_BYTES, SECONDS);
    slow[side].push(slowOf(times));
    slowest[side] = Math.max(slowest[side], times.at(-1) ?? 0);
    return perSecond;
  };
  const sides = await alternate(ROUNDS, reading("ours", ours), reading("theirs", theirs));
  for (const side of ["ours", "theirs"] as const)
    say(
      `${name}, ${side}: ${Math.round(median(sides[side]))}/s, one in a thousand ${median(slow[side]).toFixed(2)} ms, the slowest ${slowest[side].toFixed(1)} ms`,
    );
  return { ratio: ratioOfBest(sides), slow: median(slow.ours) / median(slow.theirs) };
}

export const imageNetwork = measuredUnless(
  () => missing("qemu-img", "qemu-io", "qemu-storage-daemon"),
  async (say) => {
    const pki = await makePki();
    const file = (name: string): string => join(pki, name);
    const images = {
      plain: await openImages(),
      TLS: await openImages({
        tls: {
          certFile: file("server.crt"),
          keyFile: file("server.key"),
          trustedCertsFile: file("ca.crt"),
        },
      }),
    };
    const doors = {
      plain: await openDoor(images.plain),
      TLS: await openDoor(images.TLS, clientTls(pki)),
    };
    const [echo, tlsEcho] = [await openEcho(), await openEcho(pki)];
    const figures: Figure[] = [];
    for (const name of ["plain", "TLS"] as const) {
      const { ratio, slow } = await compare(name, doors[name], echo.stream, say);
      figures.push(
        figure(`NBD over TCP, ${name}: 4 KiB reads, over a plain TCP echo`, ratio, LIMIT, "higher"),
        figure(
          `NBD over TCP, ${name}: the slowest read in a thousand, over the echo's`,
          slow,
          SLOW_LIMIT,
          "lower",
        ),
      );
    }
    await compare("for information: TLS over an echo with TLS", doors.TLS, tlsEcho.stream, say);
    for (const stream of Object.values(doors)) stream.destroy();
    await Promise.all([echo.stop(), tlsEcho.stop()]);
    await Promise.all(Object.values(images).map((one) => one.stop()));
    return figures;
  },
);
