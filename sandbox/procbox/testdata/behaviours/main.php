<?php
function fork($context, $end) {
    $pid = pcntl_fork();
    if ($pid !== 0) {
        pcntl_waitpid($pid, $status);
        return $context->res->text('parent');
    }
    $context->log('child');
    if ($end === 'exit') exit(1);
    if ($end === 'throw') throw new Exception('child');
    return $context->res->text('child');
}

return function ($context) {
    $req = $context->req;
    $res = $context->res;
    switch ($req->path) {
        case '/enforced':
            $h = $req->headers;
            $text = $h['x-own'] . ' ' . $h['x-open-runtimes-kept'] . ' ' . ($h['x-open-runtimes-secret'] ?? 'none');
            return $res->text($text, 200, ['X-Open-Runtimes-Log-Id' => 'x', 'X-Yes' => 'yes']);
        case '/values':
            $context->log('text', 1, true, ['a' => [1, 'é']], [1, 2], null);
            return $res->empty();
        case '/binary':
            $context->log("\x1b[31mred\x00", "\xff");
            echo "\x1b[31mred\x00\xff\n";
            return $res->empty();
        case '/print':
            for ($i = 0; $i < 3; $i++) {
                echo $req->query['n'], "\n";
                usleep(100);
            }
            return $res->empty();
        case '/size':
            return $res->text((string) strlen($req->bodyBinary));
        case '/fork':
            if (!function_exists('pcntl_fork')) return $res->text('parent');
            return fork($context, $req->query['end']);
    }
    return $res->text('not found', 404);
};
