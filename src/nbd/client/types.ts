/** What a caller of the NBD client sees: where to connect, how, and what an export is. Types only: it costs nothing. */

/** TLS with a server. PEM files, read at each connection. Without `ca` or `folder` the system's authorities are trusted. */
export interface NbdClientTls {
  /** Holds `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` or neither: libnbd's, QEMU's and nbdkit's names. */
  readonly folder?: string
  readonly ca?: string
  /** This client's own certificate and its key, where the server asks for one. */
  readonly certificate?: string
  readonly key?: string
  /** The name that the server's certificate must have, where it is not the host that is connected to. */
  readonly hostname?: string
  /** false: any certificate is taken. Only for a network where nobody else can answer. */
  readonly verify?: boolean
}

/** Where an export is. `name` is `''` unless given: the server's default export. TCP's port is 10809, its host `localhost`. */
export type NbdTarget =
  | { readonly uri: string; readonly tls?: NbdClientTls }
  | { readonly socket: string; readonly name?: string; readonly tls?: NbdClientTls }
  | {
      readonly host: string
      readonly port?: number
      readonly name?: string
      readonly tls?: NbdClientTls
    }

export interface NbdReconnect {
  /** How often a lost connection is tried again before it is given up, and how often one request is asked again. */
  readonly attempts: number
  /** Waited before the first attempt, and doubled before each further one (milliseconds; 100). */
  readonly delayMs?: number
  /** Waited at most (milliseconds; 10 s). */
  readonly delayMaxMs?: number
}

export interface NbdHandshakeOptions {
  /** How long connecting and the handshake may take together (milliseconds; 10 s). */
  readonly handshakeMs?: number
  /** Ends the attempt to connect (ABORTED); nothing afterwards. */
  readonly signal?: AbortSignal
}

export interface ConnectNbdOptions extends NbdHandshakeOptions {
  /** Meta contexts that are needed, by their exact names. */
  readonly contexts?: readonly string[]
  /** How long one request may go unanswered before the connection counts as lost (milliseconds; no limit). */
  readonly requestMs?: number
  readonly reconnect?: NbdReconnect
  /** Requests on their way at the same time, and bytes that they hold (64; 64 MiB). What is asked beyond waits. */
  readonly requestsMax?: number
  readonly bytesMax?: number
}

/** What the server said about the export. */
export interface NbdExportInfo {
  readonly name: string
  /** In bytes. */
  readonly size: number
  readonly readOnly: boolean
  readonly canFlush: boolean
  readonly canFua: boolean
  readonly canTrim: boolean
  readonly canZero: boolean
  readonly canFastZero: boolean
  readonly canCache: boolean
  /** Several connections are one disk: a flush on one covers the writes of all. */
  readonly multiConn: boolean
  /** In bytes; 1, 4096 and 32 MiB where the server says nothing. `maximum` is 32 MiB at most. */
  readonly blockSize: NbdBlockSize
  /** Whether holes, reasons of errors and meta contexts can be told. */
  readonly structured: boolean
  readonly tls: boolean
  /** Those that were asked for. */
  readonly contexts: readonly string[]
}

export interface NbdBlockSize {
  readonly minimum: number
  readonly preferred: number
  readonly maximum: number
}

/** A stretch of a meta context. `base:allocation`: flags HOLE 1, ZERO 2. `qemu:dirty-bitmap:…`: DIRTY 1. */
export interface NbdExtent {
  readonly offset: number
  readonly length: number
  readonly flags: number
}

/** An export as LIST tells it. */
export interface NbdListed {
  readonly name: string
  readonly description: string
}
