/**
 * The least that a client of NBD needs: it asks for an export, in TLS where asked, and reads one block after
 * another. Answers are simple ones: a head of 16 bytes and the block.
 * @see https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ConnectionOptions } from "node:tls";

const OPTION_MAGIC = 0x49484156454f5054n;
const REQUEST_MAGIC = 0x25609513;
export const REPLY_MAGIC = 0x67446698;
const START_TLS = 5;
const GO = 7;
const ACK = 1;
const FLAGS = 3;

export const REQUEST_BYTES = 28;
export const HEAD_BYTES = 16;
export const BLOCK_BYTES = 4096;

/** @throws when the stream ends before */
async function take(stream: Socket, bytes: number): Promise<Buffer> {
  for (;;) {
    const piece = stream.read(bytes) as Buffer | null;
    if (piece !== null && piece.length === bytes) return piece;
    if (stream.readableEnded || stream.destroyed) throw new Error("the NBD server hung up");
    await once(stream, "readable");
  }
}

function option(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION_MAGIC, 0);
  head.writeUInt32BE(type, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

/** Until the server agrees. */
async function agreed(stream: Socket, type: number, data: Buffer): Promise<void> {
  stream.write(option(type, data));
  for (;;) {
    const head = await take(stream, 20);
    const [answer, length] = [head.readUInt32BE(12), head.readUInt32BE(16)];
    const text = length === 0 ? "" : String(await take(stream, length));
    if (answer === ACK) return;
    if (answer >= 0x8000_0000) throw new Error(`the NBD server refused: ${text}`);
  }
}

export interface Server {
  readonly host: string;
  readonly port: number;
}

export async function connected({ host, port }: Server): Promise<Socket> {
  const socket = connect({ host, port, noDelay: true });
  await once(socket, "connect");
  return socket;
}

export async function secured(socket: Socket, tls: ConnectionOptions): Promise<Socket> {
  const stream = connectTls({ ...tls, socket });
  await once(stream, "secureConnect");
  return stream;
}

/** A connection that is ready for reads. */
export async function openExport(
  server: Server,
  name: string,
  tls?: ConnectionOptions,
): Promise<Socket> {
  let stream = await connected(server);
  await take(stream, 18);
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(FLAGS, 0);
  stream.write(flags);
  if (tls !== undefined) {
    await agreed(stream, START_TLS, Buffer.alloc(0));
    stream = await secured(stream, tls);
  }
  const size = Buffer.alloc(4);
  size.writeUInt32BE(name.length, 0);
  await agreed(stream, GO, Buffer.concat([size, Buffer.from(name), Buffer.alloc(2)]));
  return stream;
}

export interface Reads {
  readonly perSecond: number;
  /** Milliseconds that each read took, in ascending order. */
  readonly times: Float64Array;
}

/** Reads blocks at random places of the first bytes, one after another. @throws when a read fails */
export function readBlocks(stream: Socket, areaBytes: number, seconds: number): Promise<Reads> {
  const request = Buffer.alloc(REQUEST_BYTES);
  request.writeUInt32BE(REQUEST_MAGIC, 0);
  request.writeUInt32BE(BLOCK_BYTES, 24);
  const times: number[] = [];
  const head = Buffer.alloc(HEAD_BYTES);
  const began = performance.now();
  let [sent, came] = [began, 0];
  return new Promise((resolve, reject) => {
    const ask = (): void => {
      const block = Math.floor((Math.random() * areaBytes) / BLOCK_BYTES);
      request.writeUInt32BE(times.length, 12);
      request.writeBigUInt64BE(BigInt(block * BLOCK_BYTES), 16);
      sent = performance.now();
      stream.write(Buffer.from(request));
    };
    const end = (settle: () => void): void => {
      stream.off("data", take);
      stream.off("close", hangUp);
      settle();
    };
    const hangUp = (): void => end(() => reject(new Error("the server hung up")));
    const take = (data: Buffer): void => {
      if (came < HEAD_BYTES) data.copy(head, came, 0, HEAD_BYTES - came);
      came += data.length;
      if (came < HEAD_BYTES + BLOCK_BYTES) return;
      const isIt =
        came === HEAD_BYTES + BLOCK_BYTES &&
        head.readUInt32BE(0) === REPLY_MAGIC &&
        head.readUInt32BE(4) === 0 &&
        head.readUInt32BE(12) === times.length;
      if (!isIt) {
        end(() => reject(new Error("a read failed")));
        return;
      }
      const now = performance.now();
      came = 0;
      times.push(now - sent);
      if (now - began < seconds * 1000) ask();
      else {
        const perSecond = (times.length * 1000) / (now - began);
        end(() => resolve({ perSecond, times: Float64Array.from(times).toSorted() }));
      }
    };
    stream.on("data", take);
    stream.once("close", hangUp);
    ask();
  });
}
