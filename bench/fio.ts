/** fio as the client of an NBD server: the same one for every server, with its own threads and buffers, and none of our code. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

export interface Traffic {
  readonly kind: 'randwrite' | 'randread' | 'write' | 'read'
  /** Bytes of one request. */
  readonly block: number
  /** Requests that wait for an answer at the same time. */
  readonly depth: number
  /** From the disk's start: requests lie in these bytes. */
  readonly region: number
  /** null: once through the region. */
  readonly seconds: number | null
}

interface Side {
  readonly iops: number
  readonly bw_bytes: number
}

/** What it got done a second. Throws when a request failed. */
export async function fio(uri: string, traffic: Traffic): Promise<{ requests: number; bytes: number }> {
  const { kind, block, depth, region, seconds } = traffic
  const { stdout } = await promisify(execFile)('fio', [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${kind}`,
    `--bs=${block}`,
    `--iodepth=${depth}`,
    `--size=${region}`,
    ...(seconds === null ? [] : ['--time_based', `--runtime=${seconds}`]),
    '--norandommap',
    '--randrepeat=0', // Other places each time: a first touch must be one.
    '--output-format=json',
  ])
  // Its engine speaks before the JSON.
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{\n'))) as {
    jobs: readonly [{ error: number; read: Side; write: Side }]
  }
  const [{ error, read, write }] = jobs
  if (error !== 0) throw new Error(`fio ${kind} on ${uri} failed with error ${error}`)
  const side = kind === 'read' || kind === 'randread' ? read : write
  return { requests: side.iops, bytes: side.bw_bytes }
}
