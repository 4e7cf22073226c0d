/**
 * The bytes of a trace file, unpacked if it is gzip, chunk by chunk: memory does not grow with the file. Every way in
 * which a file can fail to be read ends as one error that says how far reading came.
 */
import { createReadStream, type ReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { createGunzip } from 'node:zlib'
import { CheckpointError } from '../errors.ts'

const CHUNK = 256 * 1024

export interface SourceInfo {
  readonly path: string
  readonly gzip: boolean
  /** Bytes of the file as it lies on disk. */
  readonly size: number
}

/**
 * Looks at a file without reading it.
 * @throws CheckpointError TRACE_UNREADABLE when it is absent, not a regular file, or may not be read.
 */
export async function inspectSource(path: string): Promise<SourceInfo> {
  try {
    const facts = await stat(path)
    if (!facts.isFile()) throw unreadable(path, 'it is not a regular file, and a trace is read twice', 0)
    const handle = await open(path, 'r')
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0)
      return { path, size: facts.size, gzip: bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b }
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw error instanceof CheckpointError ? error : unreadable(path, reasonOf(error), 0, error)
  }
}

/** Where reading is: bytes of the file as it lies on disk, and bytes of text that came out of it. */
export interface SourceProgress {
  fileBytes: number
  textBytes: number
}

/**
 * The file's text in chunks.
 * @throws CheckpointError TRACE_UNREADABLE, ABORTED when `signal` fires.
 */
export async function* readSource(
  source: SourceInfo,
  progress: SourceProgress,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  const file = createReadStream(source.path, { highWaterMark: CHUNK })
  const text = source.gzip ? unpack(file) : file
  try {
    for await (const chunk of text as AsyncIterable<Buffer>) {
      signal?.throwIfAborted()
      progress.fileBytes = file.bytesRead
      progress.textBytes += chunk.length
      yield chunk
    }
  } catch (error) {
    if (signal?.aborted) throw error
    throw unreadable(source.path, reasonOf(error), progress.textBytes, error)
  } finally {
    text.destroy()
    file.destroy()
  }
}

function unpack(file: ReadStream): ReturnType<typeof createGunzip> {
  const gunzip = createGunzip({ chunkSize: CHUNK })
  file.on('error', (error) => gunzip.destroy(error))
  return file.pipe(gunzip)
}

function unreadable(path: string, reason: string, textBytes: number, cause?: unknown): CheckpointError {
  const far = textBytes > 0 ? `, after ${textBytes} bytes of text` : ''
  return new CheckpointError(
    'TRACE_UNREADABLE',
    `${path} cannot be read${far}: ${reason}. Fetch the file again, or name another.`,
    { path, reason, textBytes },
    cause,
  )
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  switch (code) {
    case 'ENOENT':
      return 'there is no such file'
    case 'EACCES':
      return 'its permissions do not allow it'
    case 'Z_BUF_ERROR':
      return 'it is gzip that ends too early (a cut download?)'
    case 'Z_DATA_ERROR':
      return `its gzip data is damaged (${message})`
    default:
      return message
  }
}
