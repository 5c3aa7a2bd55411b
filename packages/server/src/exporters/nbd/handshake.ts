/**
 * The beginning of NBD: what server and client agree on before the first request. It is held with the client
 * until that has named an export and may have it; from then on the storage daemon speaks.
 * @see https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */
import type { Duplex } from "node:stream";

const NBD_MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const REPLY_MAGIC = 0x3e889045565a9n;

const FIXED_NEWSTYLE = 1;
const NO_ZEROES = 2;

export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

const ACK = 1;
const FIRST_REFUSAL = 0x8000_0000;
const SERVER = 2;
export const REFUSAL = {
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  tlsRequired: 0x8000_0005,
  unknown: 0x8000_0006,
} as const;

/** Names have at most 4096 bytes; what else options carry is small. */
const MAX_OPTION_BYTES = 16 * 1024;

/** What is not NBD, or not as it should be; the connection is closed. */
export class HandshakeError extends Error {
  override readonly name = "HandshakeError";
}

/** Far more than any option. */
const MAX_UNREAD_BYTES = 64 * 1024;

/** What comes in on a stream, taken piece by piece, until the stream is joined to another. */
export class Inlet {
  readonly stream: Duplex;
  #unread = Buffer.alloc(0);
  #hasEnded = false;
  #wake: () => void = () => {};
  readonly #onData = (data: Buffer): void => {
    this.#unread = Buffer.concat([this.#unread, data]);
    if (this.#unread.length > MAX_UNREAD_BYTES) this.stream.pause();
    this.#wake();
  };
  readonly #onEnd = (): void => {
    this.#hasEnded = true;
    this.#wake();
  };

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on("data", this.#onData);
    stream.once("end", this.#onEnd);
    stream.once("close", this.#onEnd);
  }

  /** @throws {HandshakeError} when the connection ends before */
  async take(bytes: number): Promise<Buffer> {
    while (this.#unread.length < bytes) {
      if (this.#hasEnded) throw new HandshakeError("the connection ended");
      this.stream.resume();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const piece = this.#unread.subarray(0, bytes);
    this.#unread = this.#unread.subarray(bytes);
    return piece;
  }

  /** Lets go of the stream, which stands still then. @returns what has come and was not taken */
  release(): Buffer {
    this.stream.off("data", this.#onData);
    this.stream.off("end", this.#onEnd);
    this.stream.off("close", this.#onEnd);
    this.stream.pause();
    return this.#unread;
  }
}

/** The server's first words. */
export function greeting(): Buffer {
  const text = Buffer.alloc(18);
  text.writeBigUInt64BE(NBD_MAGIC, 0);
  text.writeBigUInt64BE(OPTION_MAGIC, 8);
  text.writeUInt16BE(FIXED_NEWSTYLE | NO_ZEROES, 16);
  return text;
}

/** @returns the flags that the client sends, checked */
export async function readFlags(client: Inlet): Promise<Buffer> {
  const flags = await client.take(4);
  const value = flags.readUInt32BE(0);
  if ((value & ~(FIXED_NEWSTYLE | NO_ZEROES)) !== 0 || (value & FIXED_NEWSTYLE) === 0)
    throw new HandshakeError(`the client's flags ${value} are not known`);
  return flags;
}

export interface Option {
  readonly type: number;
  readonly data: Buffer;
}

export async function readOption(client: Inlet): Promise<Option> {
  const head = await client.take(16);
  if (head.readBigUInt64BE(0) !== OPTION_MAGIC) throw new HandshakeError("it does not speak NBD");
  const length = head.readUInt32BE(12);
  if (length > MAX_OPTION_BYTES) throw new HandshakeError(`an option of ${length} bytes`);
  return { type: head.readUInt32BE(8), data: await client.take(length) };
}

export function optionText({ type, data }: Option): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION_MAGIC, 0);
  head.writeUInt32BE(type, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

function reply(type: number, code: number, content: string | Buffer): Buffer {
  const data = Buffer.from(content);
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(REPLY_MAGIC, 0);
  head.writeUInt32BE(type, 8);
  head.writeUInt32BE(code, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

export function acknowledged({ type }: Option): Buffer {
  return reply(type, ACK, "");
}

export function refused({ type }: Option, code: number, text: string): Buffer {
  return reply(type, code, text);
}

/** The answer to `list`. */
export function listed(option: Option, names: readonly string[]): Buffer {
  const entries = names.map((name) => {
    const text = Buffer.from(name);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length, 0);
    return reply(option.type, SERVER, Buffer.concat([length, text]));
  });
  return Buffer.concat([...entries, acknowledged(option)]);
}

export interface Reply {
  readonly text: Buffer;
  readonly isRefusal: boolean;
  /** Whether others follow to the same option. */
  readonly isLast: boolean;
}

/** Of a daemon, to an option. */
export async function readReply(daemon: Inlet): Promise<Reply> {
  const head = await daemon.take(20);
  if (head.readBigUInt64BE(0) !== REPLY_MAGIC) throw new HandshakeError("no NBD server answers");
  const length = head.readUInt32BE(16);
  if (length > MAX_UNREAD_BYTES) throw new HandshakeError(`a reply of ${length} bytes`);
  const code = head.readUInt32BE(12);
  const isRefusal = code >= FIRST_REFUSAL;
  const text = Buffer.concat([head, await daemon.take(length)]);
  return { text, isRefusal, isLast: isRefusal || code === ACK };
}

/** The export that an option names, or undefined for one that names none. */
export function exportOf({ type, data }: Option): string | undefined {
  switch (type) {
    case OPTION.exportName:
      return data.toString();
    case OPTION.go:
    case OPTION.info:
    case OPTION.listMetaContext:
    case OPTION.setMetaContext: {
      if (data.length < 4) throw new HandshakeError("an option that is cut short");
      const length = data.readUInt32BE(0);
      if (length > data.length - 4) throw new HandshakeError("a name that is cut short");
      return data.toString("utf8", 4, 4 + length);
    }
    default:
      return undefined;
  }
}

/**
 * Says to the daemon what the client has said, and reads what it answers, which the client was told already.
 * @param accepted options that were acknowledged to the client
 */
export async function catchUp(
  daemon: Inlet,
  flags: Buffer,
  accepted: readonly Option[],
): Promise<void> {
  const first = await daemon.take(18);
  if (first.readBigUInt64BE(0) !== NBD_MAGIC) throw new HandshakeError("no NBD server answers");
  daemon.stream.write(flags);
  for (const option of accepted) {
    daemon.stream.write(optionText(option));
    const head = await daemon.take(20);
    await daemon.take(head.readUInt32BE(16));
    if (head.readUInt32BE(12) !== ACK)
      throw new HandshakeError(`the storage daemon refuses option ${option.type}`);
  }
}
