//! How a row of the table of routes is written.

/// A row's operation that changes something.
macro_rules! write {
    ($method:literal, $id:literal, $needs:expr, $about:literal, $parameters:expr, $handler:expr, $headers:expr, $body:ident, $examples:expr) => {
        operation!(
            input::write,
            WhileStarting::RefusesWrite,
            $method,
            $id,
            $needs,
            $about,
            $parameters,
            $handler,
            $headers,
            $body,
            Json,
            $examples
        )
    };
}

/// A row's operation that only reads.
macro_rules! read {
    ($id:literal, $needs:expr, $about:literal, $parameters:expr, $handler:expr, $headers:expr, $success:ident, $examples:expr) => {
        operation!(
            input::read,
            WhileStarting::Refuses,
            "GET",
            $id,
            $needs,
            $about,
            $parameters,
            $handler,
            $headers,
            None,
            $success,
            $examples
        )
    };
}

/// A row's operation that is done anew if it failed: it has no outcome. It has a body all the same.
macro_rules! renew {
    ($method:literal, $id:literal, $needs:expr, $about:literal, $parameters:expr, $handler:expr, $headers:expr, $body:ident, $examples:expr) => {
        operation!(
            input::read,
            WhileStarting::Refuses,
            $method,
            $id,
            $needs,
            $about,
            $parameters,
            $handler,
            $headers,
            $body,
            Json,
            $examples
        )
    };
}

macro_rules! operation {
    ($kind:path, $while_starting:expr, $method:literal, $id:literal, $needs:expr, $about:literal,
     $parameters:expr,     $handler:expr, $headers:expr, $body:ident, $success:ident, $examples:expr) => {
        Operation {
            method: $method,
            handler: |context, call| {
                Box::pin($kind(async move {
                    let parameters = Parameters::parse(call.query(), $parameters)?;
                    $crate::api::http::v1::conditions::refuse_others(call, $headers)?;
                    let handler = $handler;
                    handler(context, call, parameters).await
                }))
            },
            while_starting: $while_starting,
            needs: $needs,
            about: $about,
            id: $id,
            parameters: Some($parameters),
            headers: $headers,
            body: BodyKind::$body,
            success: BodyKind::$success,
            examples: $examples,
        }
    };
}

pub(super) use {operation, read, renew, write};
